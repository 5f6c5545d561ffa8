# SPDX-License-Identifier: Apache-2.0
"""`atb graph`: the networks of a model as text and as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_the_default_shows_one_layer_before_and_after_the_passes(atb: Run, tiny_model: str) -> None:
    before, after = atb("graph", tiny_model).out.split("# after the passes")
    assert "AddRmsNorm" not in before
    assert "AddRmsNorm" in after
    assert "model.layers.0.self_attn" in before
    assert "model.layers.1." not in before
    assert "lm_head" in before


@pytest.mark.parametrize(
    ("layers", "shown"), [("1", {1}), ("1:", {1, 2}), (":2", {0, 1}), (":", {0, 1, 2}), ("0:9", {0, 1, 2})]
)
def test_layers_are_chosen_as_in_python(atb: Run, tiny_model: str, layers: str, shown: set[int]) -> None:
    out = atb("graph", tiny_model, "--stage", "before", "--layers", layers).out
    assert {index for index in range(3) if f"# model.layers.{index}." in out} == shown


def test_a_layer_that_does_not_exist_is_an_error(atb: Run, tiny_model: str) -> None:
    result = atb("graph", tiny_model, "--layers", "3")
    assert result.status == 1
    assert "0 to 2" in result.err


def test_variants_differ_in_their_attention(atb: Run, tiny_model: str) -> None:
    assert "SelfAttention" in atb("graph", tiny_model, "--variant", "prefill").out
    assert "PagedAttention" in atb("graph", tiny_model, "--variant", "decode").out
    assert "q_lens" in atb("graph", tiny_model, "--variant", "mixed").out


def test_the_graph_for_ascend_can_be_looked_at_without_a_device(atb: Run, tiny_model: str) -> None:
    result = atb("graph", tiny_model, "--backend", "atb-sim", "--stage", "after")
    assert result.status == 0, result.err
    assert "AddRmsNorm" in result.out and "SplitLinear" not in result.out


def test_a_picture_is_written_as_dot(atb: Run, tiny_model: str, tmp_path: Path) -> None:
    target = tmp_path / "graph.dot"
    result = atb("graph", tiny_model, "--dot", str(target))
    assert (result.status, result.out) == (0, "")
    assert target.read_text().startswith("digraph")
    assert atb("graph", tiny_model, "--dot", "-").out == target.read_text()


def test_a_picture_of_one_layer_joins_what_is_outside_of_it(atb: Run, tiny_model: str) -> None:
    out = atb("graph", tiny_model, "--dot", "-").out
    assert "2 more layers" in out and "1 more layer<" in atb("graph", tiny_model, "--layers", "1:", "--dot", "-").out


def test_a_place_that_cannot_be_written_is_named(atb: Run, tiny_model: str, tmp_path: Path) -> None:
    result = atb("graph", tiny_model, "--dot", str(tmp_path / "absent" / "graph.dot"))
    assert result.status == 1 and "cannot be written: No such file or directory" in result.err


def test_an_svg_is_what_graphviz_draws(
    atb: Run, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The stand-in for Graphviz answers with its arguments and what it was given.
    program = tmp_path / "dot"
    program.write_text("#!/bin/sh\necho \"<svg $1>\"; cat; echo '</svg>'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    result = atb("graph", tiny_model, "--svg", str(tmp_path / "graph.svg"))
    assert result.status == 0, result.err
    assert (tmp_path / "graph.svg").read_text().startswith("<svg -Tsvg>\ndigraph")


def test_without_graphviz_an_svg_is_an_error_that_says_what_to_do(
    atb: Run, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    result = atb("graph", tiny_model, "--svg", str(tmp_path / "graph.svg"))
    assert result.status == 1
    assert "Graphviz" in result.err
    assert "--dot" in result.err
    assert not (tmp_path / "graph.svg").exists()
