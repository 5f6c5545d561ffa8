# SPDX-License-Identifier: Apache-2.0
"""Commands that only list or help are light: they import neither torch nor transformers nor the code of a family."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runner.tiny_tokenizers import byte_level

from atb_cli.app import COMMANDS
from atb_testing.checkpoints import tiny_checkpoint

_HEAVY = ("torch", "transformers", "tokenizers", "gguf", "huggingface_hub", "numpy", "atb_qwen2", "atb_llama")

_PROBE = f"""
import sys
from atb_cli import main
status = main(sys.argv[1:])
heavy = [name for name in {_HEAVY!r} if name in sys.modules]
print("heavy:", heavy)
sys.exit(status)
"""


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        ["version"],
        ["list"],
        ["list", "--json"],
        *([name, "--help"] for name in COMMANDS),
    ],
    ids=" ".join,
)
def test_a_command_that_uses_no_model_imports_nothing_heavy(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_help_names_every_command(atb: Callable[..., Any]) -> None:
    out = atb("--help").out
    assert [name for name in COMMANDS if f"  {name} " not in out] == []


def test_every_option_of_every_command_has_a_help_text() -> None:
    from atb_cli.app import app

    context = app.make_context("atb", ["version"])
    bare = []
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None and command.help
        bare += [f"{name} {p.opts}" for p in command.params if p.param_type_name == "option" and not p.help]
    assert bare == []


def test_the_version_is_that_of_the_package_of_commands(atb: Callable[..., Any]) -> None:
    from importlib.metadata import version

    assert atb("--version").out == f"atb {version('atb-cli')}\n"


_WITHOUT_TORCH = """
import sys


class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}")


sys.meta_path.insert(0, Refused())
from atb_cli import main

model, folder = sys.argv[1:]
for line in (["show", model], ["explain", model], ["graph", model], ["graph", model, "--html", f"{folder}/graph.html"],
             ["convert", model, f"{folder}/copy"], ["doctor"], ["models"], ["list"], ["plugins", "list"]):
    if status := main(line):
        sys.exit(f"atb {line[0]} ends with {status}")
"""


def test_commands_that_look_at_a_model_work_without_torch(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "model", "llama")
    (path / "tokenizer.json").write_text(byte_level().to_str())
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(path), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_interruption_while_modules_are_imported_is_told_as_one() -> None:
    program = """
import sys

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "atb_cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
from atb_cli import main
sys.exit(main(["list"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
