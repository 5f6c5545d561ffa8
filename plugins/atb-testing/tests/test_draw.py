# SPDX-License-Identifier: Apache-2.0
"""`atb draw`: the network of a model as a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from atb_cli import main
from atb_testing import tiny_checkpoint


@dataclass
class Result:
    """Holds the output of a command and its exit status."""

    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def atb(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> Result:
        status = main(args)
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> str:
    tiny_checkpoint(tmp_path / "model", "qwen2", num_hidden_layers=3)
    return str(tmp_path / "model")


def test_a_picture_is_written_as_dot(atb: Run, model: str, tmp_path: Path) -> None:
    target = tmp_path / "graph.dot"
    result = atb("draw", model, str(target))
    assert (result.status, result.out) == (0, "")
    assert target.read_text().startswith("digraph")
    assert atb("draw", model, "-").out == target.read_text()


def test_a_picture_of_one_layer_joins_what_is_outside_of_it(atb: Run, model: str) -> None:
    out = atb("draw", model, "-").out
    assert "2 more layers" in out and "1 more layer<" in atb("draw", model, "-", "--layers", "1:").out


def test_a_place_that_cannot_be_written_is_named(atb: Run, model: str, tmp_path: Path) -> None:
    result = atb("draw", model, str(tmp_path / "absent" / "graph.dot"))
    assert result.status == 1 and "cannot be written: No such file or directory" in result.err


def test_an_svg_is_what_graphviz_draws(atb: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The stand-in for Graphviz answers with its arguments and what it was given.
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho \"<svg $1>\"; cat; echo '</svg>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    result = atb("draw", model, str(tmp_path / "graph.svg"))
    assert result.status == 0, result.err
    assert (tmp_path / "graph.svg").read_text().startswith("<svg -Tsvg>\ndigraph")


def test_without_graphviz_an_svg_is_an_error_that_says_what_to_do(
    atb: Run, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    result = atb("draw", model, str(tmp_path / "graph.svg"))
    assert result.status == 1
    assert "Graphviz" in result.err
    assert "write graph.dot" in result.err
    assert not (tmp_path / "graph.svg").exists()
