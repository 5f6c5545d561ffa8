# SPDX-License-Identifier: Apache-2.0
"""The comparison with Hugging Face notices mistakes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atb_core.errors import ConfigError
from atb_core.graph import DataType, Network, Tensor
from atb_core.layers.attention.attention import Attention
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3
from atb_core.models.runtime import rotary
from atb_testing import ErrorReport, assert_conforms, compare_logits, tiny_checkpoint
from atb_testing.conformance import prompt_lengths
from atb_testing.probes import Place, Recording, first_difference

pytest.importorskip("transformers")
pytest.importorskip("atb_llama")


def test_a_value_that_is_right_under_another_name_is_not_the_first_to_differ() -> None:
    """Our embedding ends behind a factor that Hugging Face's model applies between two of its modules."""
    with Network() as network:
        embedded = Tensor("x", (4, 8), DataType.FLOAT) * 0.5
        _ = embedded * 2.0
    nodes = network.nodes
    places = [Place(("embed",), "output", nodes[0]), Place(("norm",), "input", nodes[0])]
    places.append(Place(("mlp",), "output", nodes[1]))
    right, wrong = torch.ones(4, 8), torch.full((4, 8), 0.5)
    truth = dict(zip((place.label for place in places), (right, right, right), strict=True))
    ours = dict(zip(truth, (wrong, right, wrong), strict=True))
    found = first_difference(Recording(places, ours), truth, truth)
    assert found is not None and (found.place, found.last_agreeing) == (places[2], "the input of norm")
    assert first_difference(Recording(places[:2], ours), truth, truth) is None


def test_errors_are_relative_to_the_size_of_the_logits() -> None:
    truth = torch.tensor([[2.0, -2.0], [4.0, -4.0]])
    report = compare_logits(truth + 0.3, truth - 0.6, truth)
    assert dataclasses.astuple(report) == pytest.approx((0.1, 0.1, 0.2, 0.2))


@pytest.mark.parametrize(("ours", "within"), [(0.1, True), (0.2, True), (0.201, False)])
def test_twice_the_error_of_torch_is_the_limit_and_a_quarter_more_for_one_logit(ours: float, within: bool) -> None:
    assert ErrorReport(1.25 * ours, 0.01, 0.1, 0.01).within() is within
    assert ErrorReport(0.01, ours, 0.01, 0.1).within() is within


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        ({}, []),
        ({"sliding_window": 40}, [38, 43]),
        ({"sliding_window": 40, "use_sliding_window": False}, []),
        ({"sliding_window": 1}, [4]),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64}}, [62, 67]),
        ({"rope_scaling": {"rope_type": "dynamic"}, "max_position_embeddings": 50}, [48, 53]),
        (
            {"rope_parameters": {"full": {"original_max_position_embeddings": 16}}, "attention_chunk_size": 20},
            [14, 19, 23],
        ),
    ],
)
def test_prompts_are_beyond_every_length_at_which_the_computation_changes(
    tmp_path: Path, config: dict[str, Any], lengths: list[int]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert prompt_lengths(tmp_path)[0] == (1, 7, 33, 18, *lengths)


def test_what_is_too_long_for_the_comparison_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"sliding_window": 4096}))
    assert prompt_lengths(tmp_path) == ((1, 7, 33, 18), [4096])
    assert prompt_lengths(tmp_path, 5000)[1] == []


def wrong_theta(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    right = rotary.rope_frequencies
    monkeypatch.setattr(
        FlashCausalLMV3,
        "rope_frequencies",
        lambda self, rope, seq_len: right(dataclasses.replace(rope, theta=rope.theta * (1 + size)), seq_len),
    )


def wrong_epsilon(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    right = RmsNorm.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        self.eps += size

    monkeypatch.setattr(RmsNorm, "__init__", init)


def wrong_scale(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    right = Attention.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        self.scale *= 1 + size

    monkeypatch.setattr(Attention, "__init__", init)


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 0.001), (torch.bfloat16, 0.5)], ids=str)
@pytest.mark.parametrize("mistake", [wrong_theta, wrong_epsilon, wrong_scale])
def test_a_mistake_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Any, dtype: torch.dtype, size: float
) -> None:
    """In float32 one of a thousandth is enough; in bfloat16 rounding hides the smallest."""
    tiny_checkpoint(tmp_path, "llama", dtype)
    assert_conforms(tmp_path, ["reference"])
    mistake(monkeypatch, size)
    with pytest.raises(AssertionError, match="more than twice torch's"):
        assert_conforms(tmp_path, ["reference"])


def test_a_type_that_transformers_does_not_know_is_named_with_the_way_to_compare_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no model of type 'own_family' to compare with.*AutoConfig\.register"):
        tiny_checkpoint(tmp_path, "own_family")


def test_factors_and_biases_of_routers_have_an_effect_on_a_tiny_checkpoint(tmp_path: Path) -> None:
    """Biases that choose experts are buffers, and Hugging Face begins with zeros and a factor of 1."""
    tiny_checkpoint(tmp_path, "glm4_moe", n_routed_experts=8, moe_intermediate_size=16)
    tensors = load_file(tmp_path / "model.safetensors")
    biases = [tensor for name, tensor in tensors.items() if name.endswith("e_score_correction_bias")]
    assert biases and all(bias.std() > 0.01 for bias in biases)
    assert json.loads((tmp_path / "config.json").read_text())["routed_scaling_factor"] == 1.7
