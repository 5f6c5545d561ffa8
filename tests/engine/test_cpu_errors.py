# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong is found before the first kernel runs, or named by op, place and value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.networks import HIDDEN, VOCAB, tiny_engine, tiny_network, tiny_weights

from atb_core.engine.cpu import CpuBackend, CpuEngine
from atb_core.errors import EngineError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import paged_attention

IDS = torch.tensor([1, 2, 3])


@pytest.fixture
def engine() -> CpuEngine:
    return tiny_engine()


def test_missing_and_unknown_names_are_listed(engine: CpuEngine) -> None:
    with pytest.raises(EngineError, match="missing: ids"):
        engine.forward({})
    with pytest.raises(EngineError, match=r"missing: ids; unknown: tokens"):
        engine.forward({"tokens": IDS})
    with pytest.raises(EngineError, match="unknown: extra"):
        engine.forward({"ids": IDS, "extra": IDS})
    with pytest.raises(EngineError, match=r"outputs do not fit the network.*unknown: probabilities"):
        engine.forward({"ids": IDS}, {"probabilities": torch.empty(3, VOCAB)})
    with pytest.raises(EngineError, match="unknown: bias"):
        engine.set_weights({"bias": torch.zeros(3)})
    with pytest.raises(EngineError, match="unknown: k_cache"):
        engine.set_kv_caches({"k_cache": torch.zeros(3)})


def test_types_shapes_and_strides_are_checked(engine: CpuEngine) -> None:
    with pytest.raises(EngineError, match=r"'ids' must be int64, not torch\.int32"):
        engine.forward({"ids": IDS.int()})
    with pytest.raises(EngineError, match="'ids' is not contiguous"):
        engine.forward({"ids": torch.arange(6)[::2]})
    with pytest.raises(EngineError, match="'ids' is on meta"):
        engine.forward({"ids": IDS.to("meta")})
    with pytest.raises(EngineError, match="'ids' must have 1 dimensions"):
        engine.forward({"ids": IDS[None]})
    with pytest.raises(EngineError, match="must be float32"):
        engine.set_weights({"norm": torch.zeros(HIDDEN, dtype=torch.float16)})
    with pytest.raises(EngineError, match=r"was given a tensor of shape \[7\]"):
        engine.set_weights({"norm": torch.zeros(7)})


def test_sizes_that_contradict_each_other_are_named(engine: CpuEngine) -> None:
    with pytest.raises(EngineError, match=r"'logits' has shape \[4, 24\].*must be 3 \(tokens = 3\), not 4"):
        engine.forward({"ids": IDS}, {"logits": torch.empty(4, VOCAB)})


def test_outputs_may_not_overlap_inputs() -> None:
    with Network("add") as net:
        x = Tensor("x", (Dim("n"),), DataType.FLOAT)
        net.mark_output(x + x, "y")
    engine, memory = CpuBackend(num_threads=1).build(net), np.zeros(12, np.float32)
    for _ in range(2):
        with pytest.raises(EngineError, match="'x' and 'y' share memory"):
            engine.forward({"x": memory[:8]}, {"y": memory[4:]})


def test_weights_that_were_not_set_are_named() -> None:
    for shapes in (True, False):
        engine = CpuBackend(num_threads=2).build(tiny_network(shapes=shapes))
        engine.set_weights({"norm": tiny_weights()["norm"]})
        with pytest.raises(EngineError, match="embedding"):
            engine.forward({"ids": IDS})


@pytest.mark.parametrize("bad", [-1, VOCAB, 2**40])
def test_an_index_out_of_range_is_named_and_the_engine_goes_on(engine: CpuEngine, bad: int) -> None:
    expected = engine.forward({"ids": IDS})["logits"].clone()
    with pytest.raises(EngineError, match=rf"Gather.*index out of range \(value {bad}, position 2"):
        engine.forward({"ids": torch.tensor([0, 1, bad])})
    assert torch.equal(engine.forward({"ids": IDS})["logits"], expected)


def attention_engine() -> CpuEngine:
    sequences, blocks, width = Dim("sequences"), Dim("blocks"), Dim("width")
    with Network("attention") as net:
        q = Tensor("q", (sequences, 2, 8), DataType.FLOAT)
        caches = [Tensor(name, (blocks, 4, 1, 8), DataType.FLOAT) for name in ("k_cache", "v_cache")]
        tables = Tensor("block_tables", (sequences, width), DataType.INT32)
        lengths = Tensor("context_lens", (sequences,), DataType.INT32)
        k_cache, v_cache = caches
        out = paged_attention(
            q,
            k_cache=k_cache,
            v_cache=v_cache,
            block_table=tables,
            kv_lens=lengths,
            head_num=2,
            kv_head_num=1,
            qk_scale=0.35,
        )
        net.mark_output(out, "out")
    return CpuBackend(num_threads=2).build(net)


@pytest.mark.parametrize(
    ("tables", "lengths", "named"),
    [([[0, 5]], [7], "5"), ([[0, -1]], [7], "-1"), ([[0, 1]], [9], "9"), ([[0, 1]], [-2], "-2")],
    ids=["block beyond the cache", "negative block", "length beyond the table", "negative length"],
)
def test_block_tables_are_never_followed_out_of_the_cache(
    tables: list[list[int]], lengths: list[int], named: str
) -> None:
    engine = attention_engine()
    inputs = {
        "q": torch.randn(1, 2, 8),
        "k_cache": torch.randn(5, 4, 1, 8),
        "v_cache": torch.randn(5, 4, 1, 8),
        "block_tables": torch.tensor(tables, dtype=torch.int32),
        "context_lens": torch.tensor(lengths, dtype=torch.int32),
    }
    with pytest.raises(EngineError, match="PagedAttention") as error:
        engine.forward(inputs)
    assert f"value {named}," in str(error.value)
