# SPDX-License-Identifier: Apache-2.0
"""Reads FP8: matrices of 8-bit floats (E4M3) with a scale for the matrix, for each row, or for each block.

`weight [n, k]` with `weight_scale_inv [n / rows, k / columns]` or `weight_scale`. No engine computes with such floats:
the matrices are expanded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.graph.arrays import HostArray
from atb_quant.loader import Parts
from atb_quant.matrix import QuantMatrix, floats
from atb_quant.settings import FLOATS, check_settings, need, refuse

_NAME = "fp8"
_READ = ("quant_method", "weight_block_size")
# Activations are not rounded to 8-bit floats.
_MEANINGLESS = ("activation_scheme", "modules_to_not_convert", "ignored_layers", "scale_fmt", "dequantize")
_ONLY = {"fmt": ("e4m3",)}
_SUFFIXES = ("weight_scale_inv", "weight_scale")


def parts(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> Parts:
    """Returns the matrices of a checkpoint; raises `WeightsError` for what is not supported or does not fit."""
    check_settings(stored, _NAME, settings, _READ, _MEANINGLESS, _ONLY)
    block = settings.get("weight_block_size")
    if block is not None and not (
        isinstance(block, list) and len(block) == 2 and all(type(size) is int and 1 <= size <= 2**31 for size in block)
    ):
        raise refuse(stored, _NAME, f"its weight_block_size is {str(block)[:100]}, not two positive numbers")
    matrices, inputs = [], set()
    for name in stored.names():
        prefix, _, suffix = name.rpartition(".")
        if suffix in _SUFFIXES:
            matrices.append(FloatMatrix(stored, _NAME, prefix, suffix, tuple(block) if block else None))
        elif suffix == "input_scale":
            inputs.add(name)
    if not matrices:
        raise refuse(stored, _NAME, f"it has no tensor *.{' or *.'.join(_SUFFIXES)}")
    return Parts(matrices, {}, frozenset(inputs))


class FloatMatrix(QuantMatrix):
    """A matrix of 8-bit floats.

    Args:
        stored: the checkpoint's tensors.
        scheme: its name in messages.
        prefix: the matrix's name.
        suffix: the name of its scales.
        block: rows and columns with one scale, `None` for scales of rows or of the matrix.
    """

    def __init__(
        self, stored: SafetensorsLoader, scheme: str, prefix: str, suffix: str, block: tuple[int, int] | None
    ) -> None:
        weight, scale = f"{prefix}.weight", f"{prefix}.{suffix}"
        if weight not in stored or len(shape := stored.shape(weight)) != 2:
            raise refuse(stored, scheme, f"it has {scale}, but no matrix {weight}")
        need(stored, scheme, weight, shape, ("F8_E4M3",))
        rows, columns = shape
        found = stored.shape(scale)
        if block is None:
            allowed = [(), (1,), (1, 1), (rows,), (rows, 1)]
            if found not in allowed:
                raise refuse(stored, scheme, f"{scale} has shape {list(found)}, not a scale for the matrix or its rows")
        need(stored, scheme, scale, found if block is None else (-(-rows // block[0]), -(-columns // block[1])), FLOATS)
        super().__init__(stored, prefix, (weight, scale), (rows, columns))
        self._block = block

    def values(self, start: int, stop: int) -> HostArray:
        rows, columns = self.shape
        scales = floats(self.stored, self.tensors[1])
        if not np.isfinite(scales).all():
            raise self.fail("has scales that are not finite", "The checkpoint is damaged; fetch it again.")
        if self._block is None:
            scales = scales.reshape(-1, 1)
        else:
            high, wide = min(self._block[0], rows), min(self._block[1], columns)
            scales = np.repeat(np.repeat(scales, high, axis=0)[:rows], wide, axis=1)[:, :columns]
        raw = self.stored.read_bytes(self.tensors[0]).view(ml_dtypes.float8_e4m3fn).reshape(self.shape)
        part = scales if len(scales) == 1 else scales[start:stop]
        values: HostArray = raw[start:stop].astype(np.float32) * part
        return values
