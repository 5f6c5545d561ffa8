# SPDX-License-Identifier: Apache-2.0
"""`atb run --input`: many prompts from a file, with a model that runs: order, own parameters, bad lines, resuming."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def run(atb: Run, chat_model: str, tmp_path: Path) -> Run:
    """Runs these lines, and gives the result and the answers that were written."""

    def run_lines(*lines: str, args: tuple[str, ...] = (), output: str = "out.jsonl") -> tuple[Any, list[Any]]:
        source, out = tmp_path / "in.jsonl", tmp_path / output
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        result = atb(
            "run", chat_model, "--input", str(source), "--output", str(out), "--ignore-eos", "--backend", "reference",
            *args,
        )  # fmt: skip
        return result, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    return run_lines


def test_answers_are_in_order_and_each_line_has_its_parameters(run: Run) -> None:
    result, answers = run(
        '"a text"',
        "",
        '{"messages": [{"role": "user", "content": "a chat"}], "max_tokens": 9, "id": "chat"}',
        '{"prompt_token_ids": [40, 41, 42], "max_tokens": 1, "logprobs": 1, "logit_bias": {"40": 100}}',
        '{"prompt": "sampled", "temperature": 1.0, "seed": 3, "n": 2, "max_tokens": 2, "id": 7}',
        args=("--max-tokens", "5"),
    )
    assert result.status == 0
    assert [answer["line"] for answer in answers] == [1, 3, 4, 5]
    assert [answer["id"] for answer in answers] == [None, "chat", None, 7]
    assert [len(answer["outputs"][0]["token_ids"]) for answer in answers] == [5, 9, 1, 2]
    assert "a text" in answers[0]["prompt"]
    assert answers[2]["prompt_token_ids"] == [40, 41, 42]
    assert answers[2]["outputs"][0]["token_ids"] == [40]
    assert answers[2]["outputs"][0]["logprobs"][0]["40"]["decoded_token"] == answers[2]["outputs"][0]["tokens"][0]
    assert len(answers[3]["outputs"]) == 2


def test_an_answer_is_the_one_that_the_line_gets_alone(run: Run) -> None:
    lines = ['{"prompt": "one", "max_tokens": 6}', '{"prompt": "a much longer second prompt", "max_tokens": 3}']
    _, together = run(*lines)
    alone = [run(line, output=f"{number}.jsonl")[1][0] for number, line in enumerate(lines)]
    assert [answer["outputs"] for answer in together] == [answer["outputs"] for answer in alone]


def test_a_full_disk_is_said_of_the_output(atb: Run, chat_model: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "one", "max_tokens": 30}')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        result = atb("run", chat_model, "--input", str(source), "--output", str(out), "--backend", "reference")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.status == 1
    assert f"error: {out} cannot be written: " in result.err


def test_bad_lines_are_named_before_the_model_is_loaded(atb: Run, runner: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        '"fine"', "nonsense", '{"prompt": 3}', '{"prompt": "x", "messages": []}', '{"text": "x"}',
        '{"prompt": "x", "temprature": 1}', '{"prompt": "x", "temperature": -1}', '"cut',
    ]  # fmt: skip
    source.write_text("\n".join(lines), encoding="utf-8")
    result = atb("run", "m", "--input", str(source))
    assert result.status == 1
    for part in (
        "line 2: ",
        "line 3: prompt must be a text",
        "line 4: it must have one of",
        "line 5: ",
        "'temprature'",
    ):
        assert part in result.err
    assert "and 2 more" in result.err
    assert not runner.loaded_with


def test_a_prompt_that_cannot_be_served_is_named_by_its_line(run: Run) -> None:
    result, answers = run('"a"', "", '{"messages": [{"role": "robot", "content": "x"}]}')
    assert result.status == 1
    assert "error: Line 3 of" in result.err
    assert "has the role 'robot'" in result.err
    assert answers == []


def test_a_run_that_was_cut_off_is_resumed(run: Run, tmp_path: Path) -> None:
    lines = [f'{{"prompt": "question {number}", "max_tokens": 2}}' for number in range(4)]
    _, whole = run(*lines)
    out = tmp_path / "out.jsonl"
    refused, _ = run(*lines)
    assert refused.status == 2
    assert "exists; --resume" in refused.err
    written = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(written[:2]) + written[2][:30])
    result, answers = run(*lines, args=("--resume",))
    assert result.status == 0
    assert [(a["line"], a["outputs"]) for a in answers] == [(a["line"], a["outputs"]) for a in whole]


def test_only_a_file_of_answers_is_resumed(atb: Run, runner: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "notes.txt"
    source.write_text('"x"', encoding="utf-8")
    out.write_text("my notes\nhalf a line", encoding="utf-8")
    result = atb("run", "m", "--input", str(source), "--output", str(out), "--resume")
    assert result.status == 1
    assert "its last line is no answer" in result.err
    assert out.read_text(encoding="utf-8") == "my notes\nhalf a line"


def test_lines_can_come_from_stdin_and_answers_go_to_stdout(
    atb: Run, chat_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO('"你好"\n"two"\n'.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    result = atb("run", chat_model, "--input", "-", "--raw", "--max-tokens", "2", "--backend", "reference")
    assert result.status == 0
    assert [json.loads(line)["prompt"] for line in result.out.splitlines()] == ["你好", "two"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["hi", "--input", "x"], "no place for PROMPT"),
        (["hi", "--output", "x"], "--output needs --input"),
        (["--input", "x", "--resume"], "--resume needs --output"),
        (["hi", "there", "friend"], 'quote it, "hi there friend"'),
    ],
)
def test_options_that_do_not_go_together(atb: Run, runner: Any, args: list[str], message: str) -> None:
    result = atb("run", "m", *args)
    assert result.status == 2
    assert message in result.err


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("source", "message"),
    [("/dev/zero", "/dev/zero: line 1 is longer than 16 MiB"), ("/dev/urandom", "/dev/urandom: line ")],
)
def test_an_input_without_end_is_refused(atb: Run, runner: Any, source: str, message: str) -> None:
    result = atb("run", "m", "--input", source)
    assert result.status == 1
    assert message in result.err
    assert not runner.loaded_with
