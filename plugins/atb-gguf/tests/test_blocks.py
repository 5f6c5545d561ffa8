# SPDX-License-Identifier: Apache-2.0
"""Quantised matrices reach the engine as the file has them, and hold there what the `gguf` package decodes."""

from __future__ import annotations

from pathlib import Path

import gguf
import gguf.quants
import numpy as np
import pytest
import torch
from checkpoint.checkpoints import write
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf_bytes import tiny_gguf

from atb_core.checkpoint import open_weights
from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.quantized import QuantizedRows
from atb_core.nn.functional import gather

#: Where the 16-bit floats of a block begin; other bytes may have any value.
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q3_K": (108,), "Q6_K": (208,)}
ROWS, COLUMNS = 37, 512


def random_blocks(name: str) -> np.ndarray:
    block, size = GGML_QUANT_SIZES[Type[name]]
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (ROWS * COLUMNS // block, size), dtype=np.uint8)
    for start in SCALES.get(name, (0,)):
        scales = random.normal(size=(len(blocks), 1)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8)
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("name", sorted(CpuBackend.block_formats))
def test_the_engine_holds_what_the_package_decodes(name: str) -> None:
    with Network("rows") as net:
        weight = Tensor("weight", (ROWS, COLUMNS), DataType.FLOAT)
        net.mark_output(gather(weight, 0, Tensor("ids", (Dim("rows"),), DataType.INT64)), "rows")
    net.weights_keys.add("weight")
    engine = CpuBackend(num_threads=2).build(net)
    blocks = random_blocks(name)
    engine.set_weight_blocks("weight", [QuantizedRows(name, COLUMNS, blocks)])
    rows = engine.forward({"ids": torch.arange(ROWS)})["rows"]
    assert np.array_equal(np.asarray(rows), gguf.quants.dequantize(blocks, Type[name]))


def test_a_loader_hands_over_quantised_matrices_and_nothing_else(tmp_path: Path) -> None:
    content, values = tiny_gguf(Type.Q8_0)
    with open_weights(write(tmp_path / "tiny.gguf", content)) as loader:
        stored = loader.blocks("model.embed_tokens.weight", {"Q8_0"})
        assert stored is not None
        assert np.array_equal(stored.blocks, gguf.quants.quantize(values["token_embd.weight"], Type.Q8_0))
        assert (stored.format, stored.columns) == ("Q8_0", values["token_embd.weight"].shape[1])
        assert loader.blocks("model.embed_tokens.weight", {"Q4_0"}) is None
        assert loader.blocks("model.norm.weight", {"Q8_0", "F32"}) is None
