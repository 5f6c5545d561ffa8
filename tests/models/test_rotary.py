# SPDX-License-Identifier: Apache-2.0
"""Rotary tables equal Hugging Face's for every rope type, and grow only as far as they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from atb_core.errors import ConfigError, RequestError
from atb_core.graph.arrays import data_type, to_torch
from atb_core.graph.dtype import DataType
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
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + i / 40 for i in range(64)],
        "long_factor": [1.0 + i / 4 for i in range(64)],
        "original_max_position_embeddings": 64,
    },
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


class TensorTables(PositionEmbedding):
    """Tables as torch tensors."""

    def tables(self, *arguments: Any) -> Any:
        tables, rows = super().tables(*arguments)
        return [(to_torch(cos), to_torch(sin)) for cos, sin in tables], to_torch(rows)


def our_tables(
    scaling: dict[str, Any] | None, dtype: torch.dtype = torch.float32, length: int = 256
) -> PositionEmbedding:
    return TensorTables([our_config(scaling).rope()], data_type(dtype), length)


def hugging_face(scaling: dict[str, Any] | None, theta: float = 500000.0) -> Any:
    """Hugging Face's rotary module; its `forward(x, position_ids)` gives cosines and sines in x's dtype."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = {**(scaling or {"rope_type": "default"}), "rope_theta": theta}
    fields = {**SIZES, "max_position_embeddings": 256, "rope_parameters": rope}
    return LlamaRotaryEmbedding(transformers.LlamaConfig(**installed_spelling(fields)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", SCALINGS)
def test_tables_are_those_of_hugging_face(kind: str, dtype: torch.dtype) -> None:
    positions = torch.arange(256)
    cos, sin = hugging_face(SCALINGS[kind])(torch.empty(0, dtype=dtype), positions[None])
    [(our_cos, our_sin)], rows = our_tables(SCALINGS[kind], dtype).tables(positions, torch.tensor([256]), True)
    # Ours are rounded from float64, so that all machines have the same; the last bit of float32 may differ.
    for ours, theirs in ((our_cos[rows], cos[0]), (our_sin[rows], sin[0])):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-7 if dtype == torch.float32 else 0)


@pytest.mark.parametrize("kind", [kind for kind in SCALINGS if kind != "default"])
def test_frequencies_and_attention_scaling_are_those_of_the_table_of_functions(kind: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[kind]
    assert scaling is not None
    inverse, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](hugging_face(scaling).config, "cpu")
    ours = rope_frequencies(our_config(scaling).rope())
    torch.testing.assert_close(to_torch(ours.inverse), inverse, rtol=1e-6, atol=0)
    assert ours.scaling == pytest.approx(factor, rel=1e-12)


def test_dynamic_follows_the_length_of_the_sequence() -> None:
    theirs = hugging_face(SCALINGS["dynamic"])
    ours = our_tables(SCALINGS["dynamic"], length=600)
    for length in (256, 300, 600):
        positions = torch.arange(length)
        cos, sin = theirs(torch.empty(0), positions[None])
        [(our_cos, our_sin)], rows = ours.tables(positions, torch.tensor([length]), True)
        # A frequency whose last bit differs, because torch's powers of float32 are not rounded exactly, moves an angle
        # by as much times the position.
        torch.testing.assert_close(our_cos[rows], cos[0], rtol=0, atol=2e-7 if length == 256 else 2e-6)
        torch.testing.assert_close(our_sin[rows], sin[0], rtol=0, atol=2e-7 if length == 256 else 2e-6)


def test_longrope_takes_the_other_list_where_a_sequence_is_longer_than_the_original_context() -> None:
    theirs, ours = hugging_face(SCALINGS["longrope"]), our_tables(SCALINGS["longrope"])
    for length in (64, 65, 200, 30):
        positions = torch.arange(length)
        cos, _ = theirs(torch.empty(0), positions[None])
        [(our_cos, _)], rows = ours.tables(positions, torch.tensor([length]), True)
        torch.testing.assert_close(our_cos[rows], cos[0], rtol=0, atol=2e-7)


def test_longrope_needs_a_factor_for_each_frequency() -> None:
    scaling = {**(SCALINGS["longrope"] or {}), "short_factor": [1.0] * 63}
    with pytest.raises(ConfigError, match="must have 64 numbers, one has 63"):
        our_tables(scaling)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_part_of_a_head_and_neighbours_are_rotated_as_by_glm(interleaved: bool) -> None:
    @dataclass
    class Partial(BaseConfig):
        partial_rotary_factor: float = 1.0

    config = Partial.from_dict({**SIZES, "partial_rotary_factor": 0.25, "max_position_embeddings": 256})
    rope = config.rope(interleaved=interleaved)
    assert rope.size == 32
    [(cos, _)], rows = TensorTables([rope], DataType.FLOAT, 256).tables(torch.arange(9), torch.tensor([9]), True)
    assert cos.shape[1] == 32
    first, second = (cos[rows][:, ::2], cos[rows][:, 1::2]) if interleaved else cos[rows].chunk(2, dim=-1)
    assert torch.equal(first, second)


def test_layers_with_other_settings_have_tables_of_their_own() -> None:
    config = our_config(None)
    ropes = [config.rope(), config.rope({"rope_theta": 1e4}), config.rope({"rope_type": "dynamic", "factor": 2.0})]
    ours = TensorTables(ropes, DataType.FLOAT, 600)
    for length in (100, 300):
        positions, lengths = torch.arange(length), torch.tensor([length])
        tables, rows = ours.tables(positions, lengths, True)
        for rope, (cos, _) in zip(ropes, tables, strict=True):
            [(alone, _)], own = TensorTables([rope], DataType.FLOAT, 600).tables(positions, lengths, True)
            assert torch.equal(cos[rows], alone[own])


def test_dynamic_treats_each_sequence_as_if_it_were_alone() -> None:
    ours = our_tables(SCALINGS["dynamic"], length=600)
    lengths = [300, 40, 500]
    alone = [ours.tables(torch.arange(n), torch.tensor([n]), True) for n in lengths]
    [together], rows = ours.tables(torch.cat([torch.arange(n) for n in lengths]), torch.tensor(lengths), True)
    for part in (0, 1):
        assert torch.equal(together[part][rows], torch.cat([pair[part][own] for [pair], own in alone]))
    # In decode there is one token a sequence, and input_lengths counts its context.
    [(decoded, _)], rows = ours.tables(torch.tensor([299, 39, 499]), torch.tensor(lengths), False)
    assert torch.equal(decoded[rows], torch.stack([cos[own][-1] for [(cos, _)], own in alone]))


def test_a_table_that_an_engine_copies_covers_no_more_than_is_used_or_allowed() -> None:
    config = BaseConfig.from_dict({**SIZES, "max_position_embeddings": 131072})
    ours = PositionEmbedding([config.rope()], DataType.BF16, 100_000, copied=True)
    [(short, _)], _ = ours.tables(np.array([10]), np.array([11]), False)
    assert len(short) < 10_000
    [(long, _)], _ = ours.tables(np.array([99_999]), np.array([100_000]), False)
    assert len(long) == 100_000
    assert np.array_equal(long[: len(short)], short)


def test_other_tables_stay_where_they_are_and_get_rows_as_positions_come() -> None:
    ours = PositionEmbedding([our_config(None).rope()], DataType.FLOAT, 100_000)
    first, _ = ours.tables(np.array([10]), np.array([11]), False)
    alike = first[0][0][:256].copy()
    assert not first[0][0][300:].any()
    second, _ = ours.tables(np.array([5_000]), np.array([5_001]), False)
    assert second[0][0] is first[0][0]
    assert np.array_equal(second[0][0][:256], alike)
    whole = PositionEmbedding([our_config(None).rope()], DataType.FLOAT, 100_000)
    [(at_once, _)], _ = whole.tables(np.arange(5_001), np.array([5_001]), True)
    assert np.array_equal(at_once[:5_001], second[0][0][:5_001])


def test_tables_get_more_memory_beyond_what_they_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.models.runtime.rotary._CAPACITY", 512)
    small = PositionEmbedding([our_config(None).rope()], DataType.FLOAT, 2_000)
    small.tables(np.array([400]), np.array([401]), False)
    [(grown, _)], _ = small.tables(np.array([1_999]), np.array([2_000]), False)
    monkeypatch.undo()
    [(whole, _)], _ = PositionEmbedding([our_config(None).rope()], DataType.FLOAT, 2_000).tables(
        np.arange(2_000), np.array([2_000]), True
    )
    assert np.array_equal(grown, whole)


@pytest.mark.parametrize("position", [-1, 256, 10**9])
def test_a_position_outside_of_the_context_is_refused(position: int) -> None:
    ours = our_tables(None)
    with pytest.raises(RequestError, match=f"position {position} is outside of the context of 256 tokens"):
        ours.tables(torch.tensor([0, position]), torch.tensor([2]), True)
