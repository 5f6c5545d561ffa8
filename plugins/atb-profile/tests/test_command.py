# SPDX-License-Identifier: Apache-2.0
"""The command `atb profile`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from runner.tiny_tokenizers import byte_level

from atb_cli.app import main
from atb_testing import tiny_checkpoint


def test_the_command_prints_tables_and_writes_a_trace(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.json"
    arguments = ["--length", "9", "--batch", "2", "--max-tokens", "3", "--no-limits", "--num-threads", "1"]
    assert main(["profile", str(checkpoint), *arguments, "--max-model-len", "32", "--trace", str(trace)]) == 0
    out, err = capsys.readouterr()
    assert "prefill: 1 steps, 18 tokens" in out
    assert "decode: 2 steps, 4 tokens" in out
    assert "model.layers.*.mlp.down" in out
    assert "limits" not in out
    assert str(trace) in err
    assert json.loads(trace.read_text())["traceEvents"]


def test_run_writes_a_trace_beside_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    tokenizer = byte_level()
    model = tiny_checkpoint(tmp_path, "qwen2", vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(model / "tokenizer.json"))
    trace = tmp_path / "trace.json"
    arguments = ["--raw", "--max-tokens", "3", "--ignore-eos", "--max-model-len", "32", "--profile", str(trace)]
    assert main(["run", str(model), "hello", *arguments]) == 0
    steps = [event["name"] for event in json.loads(trace.read_text())["traceEvents"] if event.get("cat") == "step"]
    assert steps == ["prefill", "decode", "decode"]
    assert "decode: 2 steps" in capsys.readouterr().err


def test_run_profiles_a_single_prompt(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(checkpoint), "--input", "-", "--profile", str(tmp_path / "trace.json")]) == 2
    assert "--profile needs a single PROMPT" in capsys.readouterr().err
