# SPDX-License-Identifier: Apache-2.0
"""Every way a command can end badly: one paragraph, the next step, an exit status, no traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atb_cli import errors
from atb_cli.app import take_flag
from atb_core.errors import AtbError

Run = Callable[..., Any]


def test_an_error_made_for_people_is_a_message_and_a_next_step(atb: Run, runner: Any) -> None:
    runner.pieces = [AtbError("the model\nis asleep", hint="Wake it.")]
    result = atb("run", "m", "hello")
    assert result.status == 1
    assert result.err == "error: the model is asleep\nnext: Wake it.\n"


def test_names_of_arguments_are_those_of_options_and_keys_of_files_keep_theirs(atb: Run, runner: Any) -> None:
    runner.pieces = [AtbError("the file has an unknown key 'num_threads'", hint="num_threads=4 is an argument.")]
    result = atb("run", "m", "hello")
    assert result.err == "error: the file has an unknown key 'num_threads'\nnext: --num-threads 4 is an argument.\n"


def test_what_was_streamed_before_an_error_is_kept_on_its_own_line(atb: Run, runner: Any) -> None:
    runner.pieces = ["half an ans", AtbError("too hot")]
    result = atb("run", "m", "hello")
    assert result.out == "half an ans\n"
    assert result.err == "error: too hot\n"


def test_an_unexpected_exception_is_called_a_bug(atb: Run, runner: Any) -> None:
    runner.pieces = [ZeroDivisionError("division by zero")]
    result = atb("run", "m", "hello")
    assert result.status == 1
    assert "ZeroDivisionError: division by zero" in result.err
    assert "--traceback" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("where", [0, 1, 3])
def test_the_traceback_can_be_asked_for_anywhere_on_the_line(atb: Run, runner: Any, where: int) -> None:
    runner.pieces = [AtbError("no")]
    args = ["run", "m", "hello"]
    args.insert(where, "--traceback")
    result = atb(*args)
    assert "Traceback (most recent call last)" in result.err
    assert result.err.endswith("error: no\n")


def test_the_traceback_can_be_asked_for_by_the_environment(
    atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATB_TRACEBACK", "1")
    runner.pieces = [AtbError("no")]
    assert "Traceback (most recent call last)" in atb("run", "m", "hello").err


def test_after_two_dashes_everything_is_an_argument() -> None:
    args = ["run", "m", "--", "--traceback"]
    assert take_flag(args, "--traceback") == (args, [])


def test_an_interrupt_ends_with_one_line_and_130(atb: Run, runner: Any) -> None:
    runner.pieces = ["so", KeyboardInterrupt()]
    result = atb("run", "m", "hello")
    assert (result.status, result.out, result.err) == (130, "so\n", "interrupted\n")


@pytest.mark.parametrize(
    "args",
    [
        ["run"],
        ["runn", "m"],
        ["run", "m", "p", "--max-tokens", "0"],
        ["run", "m", "p", "--top-p", "1.5"],
        ["run", "m", "p", "--backend", "gpu"],
        ["run", "m", "p", "--raw", "--system", "s"],
        ["graph", "m", "--layers", "b:a"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(atb: Run, args: list[str]) -> None:
    result = atb(*args)
    assert result.status == 2
    assert "Usage:" in result.err
    assert "Error:" in result.err


def test_a_path_that_is_not_there_is_an_error_without_a_traceback(atb: Run) -> None:
    result = atb("run", "/no/such/model", "hello")
    assert result.status == 1
    assert result.err.startswith("error: ")
    assert "/no/such/model" in result.err
    assert "Traceback" not in result.err


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    command = [sys.executable, "-m", "atb_cli", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == errors.BROKEN_PIPE


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_harm_no_command(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m atb_cli list {closed}', sys.executable], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.stdout == "") == (">&-" in closed.replace("2>&-", ""))


@pytest.mark.parametrize("arguments", [["list"], ["run", "model", "hello"], ["plugins", "new", "atb-one"]])
def test_a_folder_that_was_deleted_is_an_error_of_its_own(arguments: list[str], tmp_path: Path) -> None:
    command = f'cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && exec "$0" -m atb_cli "$@"'
    done = subprocess.run(["sh", "-c", command, sys.executable, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the current folder does not exist any more\nnext: Change to another one: cd ~\n"
