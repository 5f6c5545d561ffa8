# SPDX-License-Identifier: Apache-2.0
"""Installs and builds the packages of this repository for the sessions of noxfile.py.

scikit-build-core discards a build folder when it runs from another place than before, as pip's isolated builds always
do. The build requirements are therefore installed once for each Python version, into `build/backend-*`, and every
session builds with them: it compiles only sources that no earlier session, and no line of the README, has compiled.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import nox
from nox.command import CommandFailed
from packaging.version import Version
from repository import ROOT, Package, closure, newest_file, packages, third_party

CORE, *PLUGINS = packages()
FAMILIES = [package for package in PLUGINS if package.family]
# Their wheels hold no compiled code.
PURE = [package for package in PLUGINS if not package.compiled]
DIST = ROOT / "dist"
BUILD = ROOT / "build"
DOT_VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
# PyTorch's index of CPU builds. `ATB_TORCH_INDEX` names another one; where it is empty, pip's settings alone decide.
TORCH_INDEX = os.environ.get("ATB_TORCH_INDEX", "https://download.pytorch.org/whl/cpu")
# Programs that ask servers of OpenAI's API.
CLIENTS = (
    "guidellm>=0.8", "langchain-openai>=1", "litellm>=1.100", "llm>=0.30", "lm-eval[api]>=0.4.9", "schemathesis>=4",
)  # fmt: skip
_PRINT_TORCH = "from importlib import metadata as m; print(*(d.version for d in m.distributions(name='torch')))"
# Folders of what a wheel of the core is built from.
_CORE_SOURCES = ("atb_core", "cmake", "csrc")
_CHOICE = "ATB_TORCH_INDEX=URL takes it from another index, ATB_TORCH_INDEX= from where pip is set up to look."
_BACKEND_EXTRAS = ("cmake>=3.26", "ninja", "editables")


class Environment:
    """The Python environment of a session: its own, or `.venv` of the clone."""

    def __init__(self, session: nox.Session, python: Path | None = None) -> None:
        """Selects the session's environment, or that of the interpreter `python`."""
        self.session = session
        self._python = python

    def run(self, program: str, *args: str, env: dict[str, str] | None = None) -> None:
        """Runs a program of the environment."""
        if self._python is not None:
            program = str(self._python.with_name(program))
        self.session.run(program, *args, env=env, external=self._python is not None)

    def asked(self, code: str) -> str:
        """Returns what the environment's Python prints, also with nox's options `--install-only` and `--no-install`."""
        python = self._python or Path(self.session.bin) / "python"
        return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()

    def pip_install(self, *args: str, env: dict[str, str] | None = None) -> None:
        """Runs `pip install`, or `uv pip install` where uv made the environment."""
        if self._python is None:
            self.session.install(*args, env=env, silent=False)
        else:
            self.run("python", "-m", "pip", "install", *args, env=env)

    def install(
        self,
        members: Sequence[Package],
        *extras: str,
        options: Sequence[str] = (),
        env: dict[str, str] | None = None,
        torch: bool = True,
    ) -> None:
        """Installs packages of the repository, editable, and the requirements of them and of their `extras`.

        Args:
            members: the packages.
            extras: names of extras, of the packages that have them.
            options: options of pip for the requirements, such as `-c FILE`, or further requirements.
            env: environment variables for the build, in place of those of `build_variables`.
            torch: installs torch first.
        """
        if torch:
            self.install_torch()
        self.session.log("Building the C++ engine: minutes at first, later only changed files.")
        editable = [word for package in members for word in ("--editable", str(package.folder))]
        progress = [] if self.session.venv_backend == "uv" else ["--verbose"]  # pip then shows Ninja's lines
        # The second command must not see the build requirements, which pip would take for installed dependencies.
        env = {**build_variables(self), **(env or {})}
        self.pip_install(*progress, "--force-reinstall", "--no-deps", "--no-build-isolation", *editable, env=env)
        self.pip_install(*(package.with_extras(*extras) for package in members), *options)

    def install_torch(self, version: str = "", env: dict[str, str] | None = None) -> None:
        """Installs PyTorch's CPU build, of `version` or as in constraints.txt, if the environment has none.

        On Linux, torch from the package index requires CUDA's libraries, which nothing here uses.
        """
        version = version or pinned_torch()
        installed = self.asked(_PRINT_TORCH)
        if not TORCH_INDEX or sys.platform != "linux" or installed.partition("+")[0] == version:
            return
        self.session.log(f"Installing PyTorch's CPU build, about 200 MB; other packages take about 100 MB. {_CHOICE}")
        try:
            # Without its requirements: those come from the usual index, with the project's own.
            self.pip_install("--no-deps", "--extra-index-url", TORCH_INDEX, f"torch=={version}+cpu", env=env)
        except CommandFailed:
            self.session.error(
                f"There is no CPU build of torch {version} at {TORCH_INDEX}, nor where pip is set up to look. The "
                f"package index has builds for CUDA only, 2.7 GB with their libraries. {_CHOICE}"
            )


def pinned_torch() -> str:
    """Returns the version of torch in constraints.txt."""
    (version,) = re.findall(r"^torch==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return str(version)


def dot_venv(session: nox.Session) -> Environment:
    """Returns the environment `.venv` of the clone, made if it is not there."""
    python = DOT_VENV / "bin" / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "venv", str(DOT_VENV), external=True)
    return Environment(session, python)


def cache_tag(environment: Environment) -> str:
    """Returns the name of the environment's Python in the names of build folders, such as `cpython-311`."""
    return environment.asked("import sys; print(sys.implementation.cache_tag)")


def build_variables(environment: Environment, with_atb: str = "AUTO") -> dict[str, str]:
    """Returns the environment variables for a build in the kept folder with the kept build requirements."""
    backend = BUILD / f"backend-{cache_tag(environment)}"
    wanted = sorted({line for one in (CORE, *PLUGINS) for line in one.pyproject["build-system"]["requires"]})
    wanted += _BACKEND_EXTRAS
    stamp = backend / "requirements.txt"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8").split("\n") != wanted:
        shutil.rmtree(backend, ignore_errors=True)
        environment.pip_install("--quiet", "--target", str(backend), *wanted)
        stamp.write_text("\n".join(wanted), encoding="utf-8")
    return {
        "PYTHONPATH": str(backend),
        "PATH": f"{backend / 'bin'}{os.pathsep}{os.environ['PATH']}",
        # scikit-build-core fills in the braces. CMake would keep an earlier definition, so it is always set.
        "SKBUILD_BUILD_DIR": f"{BUILD}/{{name}}-{{cache_tag}}",
        "SKBUILD_CMAKE_DEFINE": os.environ.get("SKBUILD_CMAKE_DEFINE", f"ATB_CORE_WITH_ATB={with_atb}"),
    }


def named(session: nox.Session, default: Sequence[Package]) -> list[Package]:
    """Returns the packages whose folders follow `--`, else the default."""
    return [Package((ROOT / folder).resolve()) for folder in session.posargs] or list(default)


def build_wheels(session: nox.Session, *members: Package) -> list[Path]:
    """Builds the wheels of packages into dist/, in place of older ones, and returns their paths."""
    for old in (path for package in members for path in DIST.glob(f"{package.wheel_prefix}*.whl")):
        old.unlink()
    session.install("pip")  # environments of uv have none
    # The wheel has to run with and without Ascend's software.
    env = build_variables(Environment(session), with_atb="OFF")
    command = ("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    session.run(*command, "--wheel-dir", str(DIST), *(str(package.folder) for package in members), env=env)
    return [path for package in members for path in DIST.glob(f"{package.wheel_prefix}*.whl")]


def check_isa_symbols(session: nox.Session) -> None:
    """Checks that no code for newer processors in the built core can replace that for all; see isa_symbols.cmake."""
    if platform.machine() not in ("x86_64", "aarch64"):  # the only ones with code for several levels
        return
    environment = Environment(session)
    tag, variables = cache_tag(environment), build_variables(environment)
    objects = sorted(str(path) for path in (BUILD / f"{CORE.module}-{tag}").glob("CMakeFiles/atb_cpu.dir/**/*.o"))
    script = str(ROOT / "csrc/tests/isa_symbols.cmake")
    cmake = str(BUILD / f"backend-{tag}" / "bin" / "cmake")
    command = (cmake, "-DNM=nm", f"-DOBJECTS={';'.join(objects)}", "-P", script)
    session.run(*command, env=variables, external=True, log=False)


def core_wheel(session: nox.Session) -> Path:
    """Returns the core's wheel in dist/, built if there is none or if one of its sources is newer."""
    wheels = list(DIST.glob(f"{CORE.wheel_prefix}*.whl"))
    if not wheels:
        return build_wheels(session, CORE)[0]
    newest = newest_file(ROOT / "pyproject.toml", ROOT / "CMakeLists.txt", *map(ROOT.joinpath, _CORE_SOURCES))
    if newest.stat().st_mtime <= wheels[0].stat().st_mtime:
        return wheels[0]
    session.log(f"{wheels[0].name} is older than {newest.relative_to(ROOT)}: building it anew")
    return build_wheels(session, CORE)[0]


def replace_wheels(session: nox.Session, *wheels: str) -> None:
    """Installs wheels without what they require, in place of those of the same version, which pip would keep."""
    session.install("--force-reinstall", "--no-deps", *wheels)


def install_wheels(session: nox.Session, members: Sequence[Package]) -> None:
    """Installs wheels of the core and of `members` with their extra `test`, and checks which core is imported.

    Packages of the repository that they require, such as the kit, are built too.
    """
    core = core_wheel(session)
    Environment(session).install_torch()
    needed = closure((CORE, *members), PLUGINS)[1:]
    built = dict(zip(needed, build_wheels(session, *needed), strict=True))
    wheels = [f"{built[one]}[test]" if one in members and one.extra("test") else str(built[one]) for one in needed]
    replace_wheels(session, str(core), *map(str, built.values()))
    session.install(f"{core}[test]", *wheels, silent=False)
    session.run("python", str(ROOT / "tools/assert_core.py"), str(core))


def run_kits(session: nox.Session, members: Sequence[Package]) -> None:
    """Installs the wheels of the core and of `members` and runs each one's tests against the core's."""
    install_wheels(session, members)
    for package in members:
        run_kit(session, package)


def run_kit(session: nox.Session, package: Package) -> None:
    """Runs a plugin's tests outside its sources, so that they import the installed package.

    The helpers in tests/ of the repository can be imported, as where its own suite runs.
    """
    away = Path(session.create_tmp()).resolve() / package.folder.name
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(package.folder / "tests", away / "tests")
    with session.chdir(away):
        options = ("--import-mode=importlib", "--rootdir", str(away), "-o", f"pythonpath={ROOT / 'tests'}")
        session.run("pytest", *options, "-q", "tests")


def plugin_source(session: nox.Session, plugin: str) -> Package:
    """Returns a plugin from a folder, or by its published name from its source distribution."""
    if (Path(plugin) / "pyproject.toml").is_file():
        return Package(Path(plugin).resolve())
    return Package(unpacked_source(session, plugin))


def unpacked_source(session: nox.Session, requirement: str) -> Path:
    """Returns the folder of a published package's source distribution, without installing it."""
    session.install("pip")
    folder = Path(session.create_tmp()).resolve() / "sources"
    shutil.rmtree(folder, ignore_errors=True)
    (name,) = re.findall(r"\A[\w.-]+", requirement)
    command = ("python", "-m", "pip", "download", "--no-deps", "--no-binary", name, "--dest", str(folder))
    session.run(*command, requirement)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def run_cpp_tests(session: nox.Session, preset: str, programs: Sequence[str] = (), label: str = "") -> None:
    """Builds and runs the C++ tests with a preset of CMakePresets.json; all, some programs, or the tests of a label."""
    session.run("cmake", "--preset", preset)
    session.run("cmake", "--build", "--preset", preset, *(["--target", *programs] if programs else []))
    only = ["-R", f"^({'|'.join(programs)})$"] if programs else session.posargs
    if label:
        only = ["-L", f"^{label}$"]
    if programs:
        only += ["-j", str(os.cpu_count() or 1)]
    session.run("ctest", "--preset", preset, "--no-tests=error", *only)


def sanitized_install(session: nox.Session, members: Sequence[Package]) -> None:
    """Installs the core, built with ASan and UBSan in a folder of its own, for its tests, and pure `members`."""
    env = {
        "SKBUILD_BUILD_DIR": f"{BUILD}/{{name}}-sanitized-{{cache_tag}}",
        "SKBUILD_CMAKE_DEFINE": "ATB_SANITIZE=address;ATB_CORE_WITH_ATB=OFF",
        "SKBUILD_INSTALL_STRIP": "false",  # reports name functions and lines
    }
    environment = Environment(session)
    environment.install([CORE, *members], env=env)
    # Tests of some members require the simulator, which would be compiled, too.
    environment.pip_install(CORE.with_extras("test"))


def sanitizer_variables(session: nox.Session) -> dict[str, str]:
    """Returns the environment in which a Python that is not instrumented loads an instrumented module."""
    compiler = os.environ.get("CXX", "c++")
    # The module's own dependencies would be loaded after Python's allocations; ASan has to see all exceptions, too.
    names = [f"-print-file-name={name}" for name in ("libasan.so", "libstdc++.so")]
    paths = [str(session.run(compiler, name, external=True, silent=True)).strip() for name in names]
    # Python itself keeps memory until it exits. Torch's libraries define some symbols twice. Tests ask for more memory
    # than there is.
    options = {"detect_leaks": 0, "detect_odr_violation": 0, "allocator_may_return_null": 1}
    asan = ":".join(f"{name}={value}" for name, value in options.items())
    return {"LD_PRELOAD": ":".join(paths), "ASAN_OPTIONS": asan, "UBSAN_OPTIONS": "print_stacktrace=1"}


def instruction_sets(session: nox.Session, env: Mapping[str, str]) -> list[str]:
    """Returns the levels that the installed engine can run on this machine."""
    script = "from atb_core._cpu import supported_isas; print(*supported_isas())"
    return str(session.run("python", "-c", script, env=dict(env), silent=True)).split()


def minimum_pins() -> list[str]:
    """Returns `name==floor`, the highest, for every dependency with a floor, of the packages and of their tests."""
    every = (CORE, *PLUGINS)
    ours = {package.name for package in every}
    floors: dict[str, Version] = {}
    for requirement in (*third_party(every), *(line for package in every for line in package.extra("test"))):
        match = re.match(r"([\w.-]+)(?:\[.*?\])?>=([\w.]+)", requirement)
        # Not those for other versions of Python, the repository's own, and torch, which constraints.txt pins.
        if match and "<" not in requirement.partition(";")[2] and match[1] not in ours | {"torch"}:
            floors[match[1]] = max(Version(match[2]), floors.get(match[1], Version("0")))
    return [f"{name}=={version}" for name, version in sorted(floors.items())]
