# SPDX-License-Identifier: Apache-2.0
"""Integers of 4 bits are read as msModelSlim writes them: a byte for each, or two in a byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quant_files as files
from safetensors.torch import save_file

from atb_core.checkpoint import open_checkpoint
from atb_core.checkpoint.base import WeightLoader
from atb_core.errors import WeightsError
from atb_core.graph import DataType

NAME = "model.layers.0.mlp.up_proj"
# Two rows of four integers as the tool packs them, where a row has one scale and where it has two.
INTEGERS = [[1, 2, 3, 4], [5, 6, 7, -8]]
IN_A_ROW = [[33, 67], [101, -121]]
OF_TWO_ROWS = [[81, 98, 115, -124]]


def write(directory: Path, tensors: Mapping[str, np.ndarray], kind: str = "W4A16", **settings: Any) -> Path:
    """Writes files with the names that the tool gives them."""
    names = [f"{NAME}.{suffix}" for suffix in tensors]
    stored = {name: files.as_tensor(array) for name, array in zip(names, tensors.values(), strict=True)}
    save_file(stored, directory / f"quant_model_weight_{kind.lower()}.safetensors")
    (directory / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    description = {"model_quant_type": kind, **settings, **dict.fromkeys(names, kind)}
    (directory / "quant_model_description.json").write_text(json.dumps(description), encoding="utf-8")
    return directory


def opened(directory: Path) -> WeightLoader:
    return open_checkpoint(directory).weights(DataType.FLOAT)


def parts(weight: Any, scales: Any, offsets: Any = None) -> dict[str, np.ndarray]:
    scale = np.array(scales, np.float32)
    offset = np.zeros_like(scale) if offsets is None else np.array(offsets, np.float32)
    return {"weight": np.array(weight, np.int8), "weight_scale": scale, "weight_offset": offset}


@pytest.mark.parametrize(
    ("stored", "scales", "settings"),
    [
        (IN_A_ROW, [[0.5], [2.0]], {"version": "1.0.0", "group_size": 0}),
        (OF_TWO_ROWS, [[0.5, 1.0], [2.0, 4.0]], {"version": "1.0.0", "group_size": 2}),
        (INTEGERS, [[0.5], [2.0]], {}),
        (INTEGERS, [[0.5, 1.0], [2.0, 4.0]], {"group_size": 2}),
    ],
    ids=["a pair in a row", "a pair of rows", "a byte each", "a byte each, in groups"],
)
def test_the_bytes_of_the_tool_are_its_integers(stored: Any, scales: Any, settings: Any, tmp_path: Path) -> None:
    offsets = np.full_like(scales, 3)
    factors = np.repeat(scales, 4 // len(scales[0]), axis=1)
    for given, expected in ((None, INTEGERS * factors), (offsets, (np.array(INTEGERS) - 3) * factors)):
        with opened(write(tmp_path, parts(stored, scales, given), **settings)) as loader:
            assert loader.shape(f"{NAME}.weight") == (2, 4)
            assert np.array_equal(loader.get(f"{NAME}.weight"), expected)


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_any_rows_and_blocks_of_a_packed_matrix_have_its_values(
    size: int | None, symmetric: bool, tmp_path: Path
) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    weight = np.random.default_rng(1).normal(0, 0.3, (10, 64)).astype(np.float32)
    tensors, values = files.slim_packed(size, symmetric)(weight)
    with opened(write(tmp_path, tensors, version="1.0.0")) as loader:
        for start in range(10):
            for stop in range(start, 11):
                assert np.array_equal(loader.get_slice(f"{NAME}.weight", 0, start, stop), values[start:stop])
        assert np.array_equal(loader.get_slice(f"{NAME}.weight", 1, 7, 40), values[:, 7:40])
        rows = loader.blocks(f"{NAME}.weight", ("Q4_0", "Q5_0", "Q8_0"))
    assert rows is not None and rows.format == ("Q4_0" if symmetric else "Q5_0")
    assert np.array_equal(dequantize(rows.blocks, GGMLQuantizationType[rows.format]), values)


ONE = [[0.5], [2.0]]
FAULTS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str]] = {
    "packed without a version": (parts(IN_A_ROW, ONE), {}, "integers of more than 4 bits"),
    "rows that make no pairs": (parts(INTEGERS, [[1.0, 1.0]] * 2), {"version": "1.0.0"}, r"weight_scale has shape"),
    "an offset between integers": (parts(IN_A_ROW, ONE, [[0.5], [0]]), {"version": "1"}, "no integer from -8 to 7"),
    "an offset of 8 bits": (parts(IN_A_ROW, ONE, [[9], [0]]), {"version": "1"}, "no integer from -8 to 7"),
    "an offset that is none": (parts(IN_A_ROW, ONE, [[np.nan], [0]]), {"version": "1"}, "no integer from -8 to 7"),
    "an offset of integers that are multiplied": (
        parts(INTEGERS, ONE, [[1], [0]]), {"kind": "W8A8_DYNAMIC"}, "W8A8_DYNAMIC with a weight_offset other than 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_fit_is_refused_by_name(case: str, tmp_path: Path) -> None:
    tensors, settings, message = FAULTS[case]
    with pytest.raises(WeightsError, match=message), opened(write(tmp_path, tensors, **settings)) as loader:
        loader.get(f"{NAME}.weight")
