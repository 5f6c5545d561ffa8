# SPDX-License-Identifier: Apache-2.0
"""Rotary tables equal Hugging Face's for every rope type, and grow only as far as they are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atb_core.errors import RequestError
from atb_core.models.base.config import BaseConfig
from atb_core.models.runtime.rotary import PositionEmbedding, rope_frequencies
from atb_testing.checkpoints import installed_spelling

transformers = pytest.importorskip("transformers")

SCALINGS: dict[str, dict[str, Any] | None] = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn with settings": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "attention_factor": 0.9,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn with mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 64,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
    },
}
SIZES = {"hidden_size": 256, "num_attention_heads": 2, "head_dim": 128, "num_key_value_heads": 1}


def our_config(scaling: dict[str, Any] | None, theta: float = 500000.0) -> BaseConfig:
    return BaseConfig.from_dict({**SIZES, "max_position_embeddings": 256, "rope_theta": theta, "rope_scaling": scaling})


def hugging_face(scaling: dict[str, Any] | None, theta: float = 500000.0) -> Any:
    """Hugging Face's rotary module; its `forward(x, position_ids)` gives cosines and sines in x's dtype."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {**(scaling or {"rope_type": "default"}), "rope_theta": theta}
    fields = {**SIZES, "max_position_embeddings": 256, "rope_parameters": rope}
    return LlamaRotaryEmbedding(transformers.LlamaConfig(**installed_spelling(fields)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", SCALINGS)
def test_tables_are_those_of_hugging_face_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    positions = torch.arange(256)
    cos, sin = hugging_face(SCALINGS[kind])(torch.empty(0, dtype=dtype), positions[None])
    ours = PositionEmbedding(our_config(SCALINGS[kind]), dtype, 256)
    our_cos, our_sin, rows = ours.tables(positions, torch.tensor([256]), True)
    assert torch.equal(our_cos[rows], cos[0])
    assert torch.equal(our_sin[rows], sin[0])


@pytest.mark.parametrize("kind", [kind for kind in SCALINGS if kind != "default"])
def test_frequencies_and_attention_scaling_are_those_of_the_table_of_functions(kind: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[kind]
    assert scaling is not None
    inverse, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](hugging_face(scaling).config, "cpu")
    ours = rope_frequencies(our_config(scaling))
    torch.testing.assert_close(ours.inverse, inverse, rtol=1e-6, atol=0)
    assert ours.scaling == pytest.approx(factor, rel=1e-12)


def test_dynamic_follows_the_length_of_the_sequence() -> None:
    theirs = hugging_face(SCALINGS["dynamic"])
    ours = PositionEmbedding(our_config(SCALINGS["dynamic"]), torch.float32, 600)
    for length in (256, 300, 600):
        positions = torch.arange(length)
        cos, sin = theirs(torch.empty(0), positions[None])
        our_cos, our_sin, rows = ours.tables(positions, torch.tensor([length]), True)
        assert torch.equal(our_cos[rows], cos[0])
        assert torch.equal(our_sin[rows], sin[0])


def test_dynamic_treats_each_sequence_as_if_it_were_alone() -> None:
    ours = PositionEmbedding(our_config(SCALINGS["dynamic"]), torch.float32, 600)
    lengths = [300, 40, 500]
    alone = [ours.tables(torch.arange(n), torch.tensor([n]), True) for n in lengths]
    together = ours.tables(torch.cat([torch.arange(n) for n in lengths]), torch.tensor(lengths), True)
    for part in (0, 1):
        assert torch.equal(together[part][together[2]], torch.cat([one[part][one[2]] for one in alone]))
    # In decode there is one token a sequence, and input_lengths counts its context.
    decode = ours.tables(torch.tensor([299, 39, 499]), torch.tensor(lengths), False)
    last = torch.stack([one[0][one[2]][-1] for one in alone])
    assert torch.equal(decode[0][decode[2]], last)


def test_a_table_covers_no_more_than_is_used_or_allowed() -> None:
    config = BaseConfig.from_dict({**SIZES, "max_position_embeddings": 131072})
    ours = PositionEmbedding(config, torch.bfloat16, 100_000)
    short, _, _ = ours.tables(torch.tensor([10]), torch.tensor([11]), False)
    assert len(short) < 10_000
    long, _, _ = ours.tables(torch.tensor([99_999]), torch.tensor([100_000]), False)
    assert len(long) == 100_000
    assert torch.equal(long[: len(short)], short)


@pytest.mark.parametrize("position", [-1, 256, 10**9])
def test_a_position_outside_of_the_context_is_refused(position: int) -> None:
    ours = PositionEmbedding(our_config(None), torch.float32, 256)
    with pytest.raises(RequestError, match=f"position {position} is outside of the context of 256 tokens"):
        ours.tables(torch.tensor([0, position]), torch.tensor([2]), True)
