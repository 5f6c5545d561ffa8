# SPDX-License-Identifier: Apache-2.0
"""`atb graph`: the networks of a model as text."""

from __future__ import annotations

from collections.abc import Callable
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
    assert "neither a layer" in atb("graph", tiny_model, "--layers", "9" * 5000).err


def test_variants_differ_in_their_attention(atb: Run, tiny_model: str) -> None:
    assert "SelfAttention" in atb("graph", tiny_model, "--variant", "prefill").out
    assert "PagedAttention" in atb("graph", tiny_model, "--variant", "decode").out
    assert "q_lens" in atb("graph", tiny_model, "--variant", "mixed").out


def test_the_graph_for_ascend_can_be_looked_at_without_a_device(atb: Run, tiny_model: str) -> None:
    result = atb("graph", tiny_model, "--backend", "atb-sim", "--stage", "after")
    assert result.status == 0, result.err
    assert "AddRmsNorm" in result.out and "SplitLinear" not in result.out


def test_features_are_shown_in_the_variant_that_has_them(atb: Run, tiny_model: str) -> None:
    several = atb("graph", tiny_model, "--features", "multi_lora", "--stage", "after")
    assert several.status == 0, several.err
    assert "Lora" in several.out and "lora_slots" in several.out
    assert "Lora" not in atb("graph", tiny_model).out
    one = atb("graph", tiny_model, "--features", "single_lora", "--backend", "atb-sim", "--stage", "before")
    assert one.status == 0, one.err
    assert "lora_slots" not in one.out and "lora_rank" in one.out


def test_features_that_do_not_stack_or_do_not_exist_are_refused(atb: Run, tiny_model: str) -> None:
    both = atb("graph", tiny_model, "--features", "single_lora,multi_lora")
    assert both.status == 1
    assert "'multi_lora' does not stack on 'single_lora': a step has one adapter for all" in both.err
    unknown = atb("graph", tiny_model, "--features", "vision")
    assert unknown.status == 1 and "multi_lora (of the model)" in unknown.err
