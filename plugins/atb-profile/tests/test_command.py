# SPDX-License-Identifier: Apache-2.0
"""The command `atb profile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atb_cli.app import main


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
