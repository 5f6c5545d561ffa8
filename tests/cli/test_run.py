# SPDX-License-Identifier: Apache-2.0
"""`atb run`: where the prompt comes from, what is sent to the model, what is printed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def test_the_answer_is_streamed_and_ends_its_line(atb: Run, runner: Any) -> None:
    result = atb("run", "m", "capital of France?")
    assert (result.status, result.out, result.err) == (0, "Paris.\n", "")


def test_a_prompt_is_a_user_message_of_a_chat(atb: Run, runner: Any) -> None:
    atb("run", "m", "hello", "--system", "Be brief.")
    system, user = runner.requests[0]
    assert system == {"role": "system", "content": "Be brief."}
    assert user == {"role": "user", "content": "hello"}


def test_raw_sends_the_prompt_as_it_is(atb: Run, runner: Any) -> None:
    atb("run", "m", " once upon", "--raw")
    assert runner.requests == [" once upon"]


@pytest.mark.parametrize("args", [[], ["-"]], ids=["no prompt", "dash"])
def test_the_prompt_can_come_from_stdin(
    atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))
    atb("run", "m", *args, "--raw")
    assert runner.requests == ["from a pipe\n"]


def test_stdin_is_left_alone_when_there_is_a_prompt(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO("other")
    monkeypatch.setattr("sys.stdin", stdin)
    atb("run", "m", "hello")
    assert stdin.read() == "other"


def test_an_empty_stdin_is_a_usage_error(atb: Run, runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    result = atb("run", "m")
    assert result.status == 2
    assert "stdin is empty" in result.err


def test_sampling_options_reach_the_runner(atb: Run, runner: Any) -> None:
    atb(
        "run", "m", "p", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "20", "--min-p", "0.05",
        "--repetition-penalty", "1.1", "--seed", "3", "--max-tokens", "9", "--stop", "a", "--stop", "b",
        "--ignore-eos",
    )  # fmt: skip
    sampling = runner.sampling[0]
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.7, 0.9, 20, 0.05)
    assert (sampling.repetition_penalty, sampling.seed, sampling.max_tokens) == (1.1, 3, 9)
    assert (list(sampling.stop), sampling.ignore_eos) == (["a", "b"], True)


def test_without_sampling_options_decoding_is_greedy(atb: Run, runner: Any) -> None:
    atb("run", "m", "p")
    assert runner.sampling[0].greedy


def test_loading_options_reach_the_runner(atb: Run, runner: Any) -> None:
    atb(
        "run",
        "m",
        "p",
        "--backend",
        "cpu",
        "--graph",
        "cpp",
        "--dtype",
        "float32",
        "--num-threads",
        "1",
        "--max-model-len",
        "64",
        "--feature",
        "lora",
    )
    assert runner.loaded_with == {
        "model": "m", "backend": "cpu", "graph": "cpp", "dtype": "float32", "num_threads": 1, "max_model_len": 64,
        "features": ("lora",),
    }  # fmt: skip


def test_json_is_one_object_and_nothing_else(atb: Run, runner: Any) -> None:
    record = json.loads(atb("run", "m", "p", "--json").out)
    assert record["text"] == "Paris."
    assert record["token_ids"] == [0, 1, 2]
    assert record["finish_reason"] == "stop"


def test_stats_go_to_stderr(atb: Run, runner: Any) -> None:
    result = atb("run", "m", "p", "--stats")
    assert result.out == "Paris.\n"
    # Two prompt tokens in half a second; then two more tokens after the first, in two seconds.
    assert "4 tok/s" in result.err
    assert "3 tokens generated (1.0 tok/s)" in result.err


def test_chat_variables_are_json_or_text(atb: Run, runner: Any) -> None:
    atb("run", "m", "x", "--chat-variable", "deep=true", "--chat-variable", "date=1 Jan", "--chat-variable", "n=[1]")
    assert runner.chat_variables == [{"deep": True, "date": "1 Jan", "n": [1]}]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--chat-variable", "deep"], "--chat-variable deep: write NAME=VALUE"),
        (["--chat-variable", "=1"], "write NAME=VALUE"),
        (["--chat-variable", "a=1", "--chat-variable", "a=2"], "the chat variable a is given twice"),
        (["--raw", "--chat-variable", "a=1"], "--raw uses no chat template"),
        (["--raw", "--no-thinking"], "--raw uses no chat template"),
    ],
)
def test_wrong_chat_variables_are_refused_before_loading(atb: Run, runner: Any, args: list[str], message: str) -> None:
    result = atb("run", "m", "x", *args)
    assert result.status == 2
    assert message in result.err
    assert not runner.loaded_with


@pytest.mark.parametrize("command", ["run", "chat"])
def test_a_family_without_a_switch_for_thinking_refuses_the_option(
    atb: Run, runner: Any, tiny_model: str, command: str
) -> None:
    result = atb(command, tiny_model, *(["x"] if command == "run" else []), "--no-thinking")
    assert result.status == 1
    assert "--no-thinking: models of type 'tiny' have no switch for thinking" in result.err
    assert not runner.loaded_with


@pytest.mark.parametrize(("option", "value"), [("--thinking", True), ("--no-thinking", False)])
def test_the_familys_switch_for_thinking_is_set(
    atb: Run, runner: Any, tiny: Any, tiny_model: str, monkeypatch: pytest.MonkeyPatch, option: str, value: bool
) -> None:
    monkeypatch.setattr(tiny.TinyRouter, "thinking_variable", "ponder")
    assert atb("run", tiny_model, "x", option).status == 0
    assert runner.chat_variables == [{"ponder": value}]
    assert atb("run", tiny_model, "x", option, "--chat-variable", "ponder=1").status == 2
