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
from atb_core.engine.cpu import CpuBackend, CpuEngine
from atb_core.errors import WeightsError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.quantized import FileRows, QuantizedRows
from atb_core.nn.functional import gather
from atb_gguf.quants import integers

#: Where the 16-bit floats of a block begin; other bytes may have any value.
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q3_K": (108,), "Q6_K": (208,)}
ROWS, COLUMNS = 37, 512


def random_blocks(name: str, rows: int = ROWS) -> np.ndarray:
    block, size = GGML_QUANT_SIZES[Type[name]]
    random = np.random.default_rng(1)
    blocks = random.integers(0, 256, (rows * COLUMNS // block, size), dtype=np.uint8)
    for start in SCALES.get(name, (0,)):
        scales = random.normal(size=(len(blocks), 1)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)


def engine_of_rows(rows: int = ROWS, columns: int = COLUMNS) -> CpuEngine:
    """An engine that returns rows of its matrix `weight`."""
    with Network("rows") as net:
        weight = Tensor("weight", (rows, columns), DataType.FLOAT)
        net.mark_output(gather(weight, 0, Tensor("ids", (Dim("rows"),), DataType.INT64)), "rows")
    net.weights_keys.add("weight")
    return CpuBackend(num_threads=2).build(net)


@pytest.mark.parametrize("name", sorted(CpuBackend.block_formats))
def test_the_engine_holds_what_the_package_decodes(name: str) -> None:
    engine, blocks = engine_of_rows(), random_blocks(name)
    engine.set_weight_blocks("weight", [QuantizedRows(name, COLUMNS, blocks)])
    rows = engine.forward({"ids": torch.arange(ROWS)})["rows"]
    assert np.array_equal(np.asarray(rows), gguf.quants.dequantize(blocks, Type[name]))


@pytest.mark.parametrize("name", sorted(CpuBackend.block_formats))
def test_the_engine_reads_rows_from_a_file_in_pieces(tmp_path: Path, name: str) -> None:
    # More rows than two threads read at once, and a last piece that is not whole.
    first, second = random_blocks(name, 2005), random_blocks(name)
    (path := tmp_path / "blocks").write_bytes(b"before" + first.tobytes())
    engine = engine_of_rows(2005 + ROWS)
    with path.open("rb") as file:
        place = FileRows(first.shape, file.fileno(), 6, lambda: pytest.fail("the engine reads the file itself"))
        parts = [QuantizedRows(name, COLUMNS, place), QuantizedRows(name, COLUMNS, second)]
        engine.set_weight_blocks("weight", parts)
    rows = engine.forward({"ids": torch.arange(2005 + ROWS)})["rows"]
    assert np.array_equal(np.asarray(rows), gguf.quants.dequantize(np.vstack((first, second)), Type[name]))


def test_a_file_that_gets_shorter_while_it_is_loaded_is_named(tmp_path: Path) -> None:
    content, values = tiny_gguf(Type.Q8_0)
    path = write(tmp_path / "tiny.gguf", content)
    engine = engine_of_rows(*values["token_embd.weight"].shape)
    with open_weights(path) as loader:
        stored = loader.blocks("model.embed_tokens.weight", {"Q8_0"})
        assert stored is not None
        with path.open("r+b") as file:
            file.truncate(loader.locate("model.embed_tokens.weight").offset + 100)  # type: ignore[attr-defined]
        with pytest.raises(WeightsError, match=r"tiny.gguf ends inside tensor 'model.embed_tokens.weight'"):
            engine.set_weight_blocks("weight", [stored])
        assert "weight" not in engine.store
        path.write_bytes(content)
        engine.set_weight_blocks("weight", [stored])
    expected = gguf.quants.dequantize(gguf.quants.quantize(values["token_embd.weight"], Type.Q8_0), Type.Q8_0)
    rows = engine.forward({"ids": torch.arange(len(expected))})["rows"]
    assert np.array_equal(np.asarray(rows), expected)


def test_a_loader_hands_over_quantised_matrices_and_nothing_else(tmp_path: Path) -> None:
    content, values = tiny_gguf(Type.Q8_0)
    with open_weights(write(tmp_path / "tiny.gguf", content)) as loader:
        stored = loader.blocks("model.embed_tokens.weight", {"Q8_0"})
        assert stored is not None
        assert np.array_equal(stored.blocks, gguf.quants.quantize(values["token_embd.weight"], Type.Q8_0))
        assert (stored.format, stored.columns) == ("Q8_0", values["token_embd.weight"].shape[1])
        assert loader.blocks("model.embed_tokens.weight", {"Q4_0"}) is None
        assert loader.blocks("model.norm.weight", {"Q8_0", "F32"}) is None


def of_integers(found: tuple[str, np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """The numbers that integers in groups of 32 are, `scale (q - zero)`."""
    name, q, scales, zeros = found
    lowest, highest = (-8, 7) if name == "INTEGERS4" else (-128, 127)
    assert lowest <= q.min() <= q.max() <= highest
    groups = q.reshape(len(q), -1, 32).astype(np.float32) - zeros.reshape(len(q), -1, 1)
    return (groups * scales.reshape(len(q), -1, 1)).reshape(len(q), -1)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K"])
def test_blocks_are_integers_for_engines_that_take_those(name: str) -> None:
    blocks = random_blocks(name).reshape(-1, GGML_QUANT_SIZES[Type[name]][1])
    for start in SCALES.get(name, ())[1:]:  # a minimum of a few steps, as files have them
        blocks[:, start : start + 2] = (blocks[:, :2].view(np.float16) / 2).astype(np.float16).view(np.uint8)
    if name in ("Q4_K", "Q5_K"):
        blocks[:, 4:16] |= 32  # no scale is far below its minimum
    found = integers(blocks, Type[name])
    assert found is not None
    assert found[0] == ("INTEGERS4" if name.startswith("Q4") else "INTEGERS8")
    decoded = gguf.quants.dequantize(blocks, Type[name])
    assert np.abs(of_integers(found) - decoded).max() <= 1e-5 * np.abs(decoded).max()


def test_a_group_of_one_value_is_that_value() -> None:
    block = np.concatenate([np.array([0, 1.5], np.float16).view(np.uint8), np.full(16, 0x5A, np.uint8)])[None]
    found = integers(block, Type.Q4_1)
    assert found is not None
    assert np.array_equal(of_integers(found), np.full((1, 32), 1.5, np.float32))


@pytest.mark.parametrize("scale_and_shift", [(np.inf, 0.0), (0.001, 1.0), (np.nan, 1.0)], ids=str)
def test_blocks_that_integers_would_round_or_break_are_none(scale_and_shift: tuple[float, float]) -> None:
    block = np.concatenate([np.array(scale_and_shift, np.float16).view(np.uint8), np.zeros(16, np.uint8)])[None]
    assert integers(block, Type.Q4_1) is None
    assert integers(random_blocks("Q6_K"), Type.Q6_K) is None


def test_a_loader_hands_over_integers_and_names_what_it_expands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, _ = tiny_gguf(Type.Q8_0)
    with open_weights(write(tmp_path / "tiny.gguf", content)) as loader:
        loader.keeps_integers = True
        rows = loader.blocks("model.embed_tokens.weight", {"INTEGERS4", "INTEGERS8"})
        values = np.asarray(loader.get("model.embed_tokens.weight")).astype(np.float32)
    assert rows is not None
    assert (rows.format, rows.columns) == ("INTEGERS8", values.shape[1])
    numbers = rows.blocks[:, rows.columns :].copy().view(np.float32)
    groups = numbers.shape[1] // 2
    q = rows.blocks[:, : rows.columns].view(np.int8)
    assert np.allclose(of_integers(("INTEGERS8", q, numbers[:, :groups], numbers[:, groups:])), values, rtol=2.0**-8)
    assert "1 of Q8_0 are expanded to" in caplog.text
    assert "model.embed_tokens.weight" in caplog.text
