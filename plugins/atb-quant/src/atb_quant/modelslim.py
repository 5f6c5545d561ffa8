# SPDX-License-Identifier: Apache-2.0
"""Reads msModelSlim's checkpoints: 8-bit integers, with a description of the type of each tensor.

| type | tensors beside `weight [n, k]` int8 |
|---|---|
| `W8A8` | `deq_scale [n]`, `quant_bias [n]`, `input_scale [1]`, `input_offset [1]` |
| `W8A8_DYNAMIC`, `W8A16`, `W4A16` | `weight_scale`, `weight_offset` for rows or groups of inputs |
| `W8A8_MIX`, `W8A8_PDMIX` | both |

Where the description has a `version`, the format that the tool calls ascendV1, two integers of `W4A16` share a byte,
the first in its low half: neighbours in a row where a row has one scale (`weight [n, k / 2]`), two rows where it has
several (`weight [n / 2, k]`). Without a version each has a byte. A matrix that is not rounded symmetrically has a
`weight_offset`, which is subtracted from its integers.

A static product is `deq_scale (sum(weight q) + quant_bias)` of the activation's integers `q = x / input_scale +
input_offset`. Of activations that are not rounded it is the product with the matrix `weight deq_scale / input_scale`
plus the bias `deq_scale (quant_bias + input_offset sum(weight))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, to_numpy
from atb_quant.loader import Parts
from atb_quant.matrix import (
    MAX_INPUTS,
    Groups,
    IntegerMatrix,
    Product,
    Vector,
    dynamic_product,
    floats,
    static_product,
)
from atb_quant.settings import FLOATS, need, refuse

_NAME = "msmodelslim"
_STATIC = "W8A8"
_SCALED = ("W8A8_DYNAMIC", "W8A8_MIX", "W8A8_PDMIX", "W8A16", "W4A16")
_PLAIN = "FLOAT"
_MEANINGLESS = ("model_quant_type", "version", "group_size", "metadata", "model_type")
_PARTS = ("weight_scale", "weight_offset", "input_scale", "input_offset", "deq_scale", "quant_bias")
# Layers that models may pack into one: a bias of one needs one of the others.
_PACKED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def parts(stored: SafetensorsLoader, settings: Mapping[str, Any]) -> Parts:
    """Returns the matrices of a checkpoint; raises `WeightsError` for what is not supported or does not fit."""
    known = (_PLAIN, _STATIC, *_SCALED)
    for key, value in settings.items():
        if key not in stored and key not in _MEANINGLESS and value not in (None, False, "", {}, [], 0, _PLAIN):
            raise refuse(stored, _NAME, f"its setting {key[:100]!r} is not supported: {str(value)[:100]}")
        if key in stored and value not in known:
            types = ", ".join(known)
            raise refuse(stored, _NAME, f"{key} is of type {str(value)[:100]!r}, which is none of {types}")
    matrices: list[_SlimMatrix] = []
    vectors: dict[str, Vector] = {}
    dropped = set()
    for name in stored.names():
        prefix, _, suffix = name.rpartition(".")
        kind = settings.get(f"{prefix}.weight", _PLAIN)
        if suffix != "weight" or kind == _PLAIN:
            if suffix == "weight" and stored.locate(name).type == "I8":
                raise refuse(stored, _NAME, f"its description does not say of what type {name} is")
            continue
        matrices.append(matrix := _SlimMatrix(stored, prefix, kind, bool(settings.get("version"))))
        if kind == _STATIC:
            # `quant_bias` holds the bias.
            if f"{prefix}.bias" in stored:
                dropped.add(f"{prefix}.bias")
            # Experts have no bias; what is stored for one undoes the offset, and then nothing is left of it.
            if matrix.has_bias() and (".experts." not in prefix or matrix.bias().any()):
                vectors[f"{prefix}.bias"] = Vector(matrix.shape[0], matrix.bias)
    if not matrices:
        raise refuse(stored, _NAME, "its description names no quantised matrix")
    _add_biases(stored, {matrix.prefix: matrix for matrix in matrices}, vectors)
    return Parts(matrices, vectors, frozenset(dropped - vectors.keys()))


def _add_biases(stored: SafetensorsLoader, matrices: Mapping[str, _SlimMatrix], vectors: dict[str, Vector]) -> None:
    """Adds biases of zeros beside layers that have one."""
    for name in [name for name in (*stored.names(), *vectors) if name.endswith("_proj.bias")]:
        parent, _, last = name.removesuffix(".bias").rpartition(".")
        for other in (each for packed in _PACKED if last in packed for each in packed):
            prefix = f"{parent}.{other}"
            if f"{prefix}.bias" not in vectors and f"{prefix}.bias" not in stored and f"{prefix}.weight" in stored:
                rows = stored.shape(f"{prefix}.weight")[0]
                vectors[f"{prefix}.bias"] = Vector(rows, partial(np.zeros, rows, np.float32))


class _SlimMatrix(IntegerMatrix):
    """A matrix of 8-bit integers, some of which hold 4 bits, or two of them; `version`: its description has one."""

    def __init__(self, stored: SafetensorsLoader, prefix: str, kind: str, version: bool) -> None:
        weight = f"{prefix}.weight"
        shape = stored.shape(weight)
        if len(shape) != 2:
            raise refuse(stored, _NAME, f"{weight} has shape {list(shape)}, not two dimensions")
        need(stored, _NAME, weight, shape, ("I8",))
        present = [f"{prefix}.{part}" for part in _PARTS if f"{prefix}.{part}" in stored]
        self._pair_axis: int | None = None
        if kind == "W4A16":
            self.lowest, self.highest = -8, 7
            if version:
                scale = f"{prefix}.weight_scale"
                self._pair_axis = 1 if scale in stored and stored.shape(scale)[1:] == (1,) else 0
                shape = (2 * shape[0], shape[1]) if self._pair_axis == 0 else (shape[0], 2 * shape[1])
        super().__init__(stored, prefix, (weight, *present), (shape[0], shape[1]))
        self._kind = kind
        self._static = kind == _STATIC
        if self._static:
            need(stored, _NAME, self._name("deq_scale"), shape[:1], (*FLOATS, "I64"))
            need(stored, _NAME, self._name("quant_bias"), shape[:1], ("I32",))
            need(stored, _NAME, self._name("input_scale"), (1,), FLOATS)
            need(stored, _NAME, self._name("input_offset"), (1,), (*FLOATS, "I8", "I32"))
            return
        found = stored.shape(scale) if (scale := self._name("weight_scale")) in stored else (shape[0], 1)
        groups = found[1] if len(found) == 2 else 1
        if groups < 1 or shape[1] % groups:
            raise refuse(stored, _NAME, f"{scale} has {groups} groups, which do not divide {shape[1]} inputs")
        need(stored, _NAME, scale, found if found == shape[:1] else (shape[0], groups), FLOATS)
        if (offset := self._name("weight_offset")) in stored:
            need(stored, _NAME, offset, found, (*FLOATS, "I8", "I32"))

    def product(self, dtype: DataType) -> Product | None:
        if self._kind not in ("W8A8", "W8A8_DYNAMIC", "W8A8_MIX", "W8A8_PDMIX") or self.shape[1] > MAX_INPUTS:
            return None
        if not self._static:
            method = "W8A8_DYNAMIC" if self._kind == "W8A8_DYNAMIC" else "W8A8_MIX"
            scales = self.groups().scales
            return dynamic_product(method, self.shape[0], lambda: scales[:, 0]) if scales.shape[1] == 1 else None
        scale, offset = map(float, self._input())
        self.check_input(scale, offset, dtype)
        quant_bias = self._name("quant_bias")
        return static_product(
            self.shape[0], dtype, (scale, offset), self._deq_scale, lambda: to_numpy(self.stored.get(quant_bias))
        )

    def _name(self, part: str) -> str:
        return f"{self.prefix}.{part}"

    def integers(self, start: int, stop: int) -> HostArray:
        first, last = (start // 2, -(-stop // 2)) if self._pair_axis == 0 else (start, stop)
        stored = to_numpy(self.stored.get_slice(self.tensors[0], 0, first, last))
        if self._pair_axis is not None:
            halves = np.stack((((stored & 15) ^ 8) - 8, stored >> 4), self._pair_axis + 1).reshape(-1, self.shape[1])
            skipped = start % 2 if self._pair_axis == 0 else 0
            stored = halves[skipped : skipped + stop - start]
        integers = stored.astype(np.int16)
        if integers.size and not self.lowest <= integers.min() <= integers.max() <= self.highest:
            raise self.fail("has integers of more than 4 bits", "Its description has no version: each has a byte.")
        return integers

    def read_groups(self) -> Groups:
        rows, columns = self.shape
        if self._static:
            scales, zeros = (self._deq_scale() / self._input()[0]).reshape(rows, 1), np.zeros((1, 1), np.float32)
        else:
            scales = floats(self.stored, self._name("weight_scale")).reshape(rows, -1)
            zeros = self._offsets(scales.shape)
        return Groups(scales, zeros.astype(np.int32), columns // scales.shape[1])

    def _offsets(self, shape: tuple[int, ...]) -> HostArray:
        """Returns what is subtracted from the integers, float32 of a shape."""
        name = self._name("weight_offset")
        offsets = floats(self.stored, name).reshape(shape) if name in self.stored else np.zeros(shape, np.float32)
        if self._kind not in ("W8A16", "W4A16"):
            if offsets.any():
                raise self.fail(f"is {self._kind} with a weight_offset other than 0, which is not supported")
        elif not ((offsets >= self.lowest) & (offsets <= self.highest) & (offsets % 1 == 0)).all():
            raise self.fail(f"has a weight_offset that is no integer from {self.lowest} to {self.highest}")
        return offsets

    def _deq_scale(self) -> HostArray:
        stored = to_numpy(self.stored.get(self._name("deq_scale")))
        # Checkpoints in float16 have the bits of the float in an integer.
        scale = (stored & 0xFFFFFFFF).astype(np.uint32).view(np.float32) if stored.dtype == np.int64 else stored
        if not np.isfinite(scale := scale.astype(np.float32)).all():
            raise self.fail("has a deq_scale that is not finite", "The checkpoint is damaged; fetch it again.")
        return scale

    def _input(self) -> tuple[np.float32, np.float32]:
        """Returns scale and offset of the activations."""
        scale, offset = (floats(self.stored, self._name(part))[0] for part in ("input_scale", "input_offset"))
        if not (np.isfinite(scale) and scale > 0 and np.isfinite(offset)):
            hint = "The checkpoint is damaged; fetch it again."
            raise self.fail(f"has activations with the scale {scale} and the offset {offset}", hint)
        return scale, offset

    def has_bias(self) -> bool:
        """Returns true if `bias` may be other than zeros."""
        return bool(self._input()[1] != 0 or to_numpy(self.stored.get(self._name("quant_bias"))).any())

    def bias(self) -> HostArray:
        """Returns the bias of the product with activations that are not rounded, float32 `[n]`."""
        sums = to_numpy(self.stored.get(self.tensors[0])).sum(1, dtype=np.int64)
        total = to_numpy(self.stored.get(self._name("quant_bias"))) + np.float64(self._input()[1]) * sums
        bias: HostArray = (self._deq_scale() * total).astype(np.float32)
        return bias
