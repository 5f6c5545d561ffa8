# SPDX-License-Identifier: Apache-2.0
"""Matrices of integers with scales: their values, and the engine's blocks that hold the same numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype, to_numpy
from atb_core.graph.quantized import QuantizedRows

# Elements that are decoded at a time.
_CHUNK = 1 << 21
# The elements of a block; formats by the integers that they hold, the smallest first.
_BLOCK = 32
_FORMATS = (("Q4_0", -8, 7), ("Q5_0", -16, 15), ("Q8_0", -128, 127))


class Groups(NamedTuple):
    """Holds what a matrix `[n, k]` has beside its integers.

    Attributes:
        scales: float32 `[n, groups]`, or `[1, groups]` for all rows.
        zeros: int32 of such a shape, subtracted from the integers.
        size: elements of a row in a group; the last may have fewer.
        of_column: int64 `[k]`, the group of each column; `None`: one group after another.
    """

    scales: HostArray
    zeros: HostArray
    size: int
    of_column: HostArray | None = None


@dataclass(frozen=True)
class Vector:
    """A tensor of one dimension that is computed from others.

    Attributes:
        size: number of elements.
        values: returns them.
        dtype: their type; `None` for the floating type of the loader.
    """

    size: int
    values: Callable[[], HostArray]
    dtype: DataType | None = None


@dataclass(frozen=True)
class Product:
    """Holds what a matrix has beside its integers where activations are integers, too.

    Attributes:
        method: the type of the linear method, one of `QuantTypeV3`.
        vectors: the method's tensors by suffix, for this matrix.
        input: scale and offset of the activations, which packed matrices must have in common.
    """

    method: str
    vectors: Mapping[str, Vector]
    input: tuple[float, float] | None = None


#: The largest number of inputs whose products 32 bits can add.
MAX_INPUTS = 131071


def dynamic_product(method: str, rows: int, scales: Callable[[], HostArray]) -> Product:
    """Returns the product of a matrix with float32 `scales` `[rows]` and a scale for each row of activations."""
    return Product(method, {"weight_scale": Vector(rows, scales, DataType.FLOAT)})


def static_product(
    rows: int,
    dtype: DataType,
    inputs: tuple[float, float],
    scales: Callable[[], HostArray],
    bias: Callable[[], HostArray],
) -> Product:
    """Returns the product of a matrix with activations that have one scale.

    Args:
        rows: n.
        dtype: the model's.
        inputs: scale, which is rounded to `dtype`, and offset of the activations.
        scales: returns float32 `[n]`, of the outputs.
        bias: returns int32 `[n]`, added to the sums.
    """

    def packed() -> HostArray:
        bits: HostArray = scales().astype(np.float32).view(np.uint32).astype(np.int64)
        return bits

    half = dtype is DataType.FLOAT16
    vectors = {
        "deq_scale": Vector(rows, packed if half else scales, DataType.INT64 if half else DataType.FLOAT),
        "quant_bias": Vector(rows, bias, DataType.INT32),
        "input_scale": Vector(1, lambda: np.array([inputs[0]], np.float32), dtype),
        "input_offset": Vector(1, lambda: np.array([inputs[1]], np.int8), DataType.INT8),
    }
    return Product("W8A8", vectors, inputs)


class QuantMatrix(ABC):
    """A quantised matrix of a checkpoint.

    Args:
        stored: the checkpoint's tensors.
        prefix: its name without `.weight`.
        tensors: names of the tensors that it is made of.
        shape: `[n, k]`.
    """

    def __init__(
        self, stored: SafetensorsLoader, prefix: str, tensors: Collection[str], shape: tuple[int, int]
    ) -> None:
        self.stored = stored
        self.prefix = prefix
        self.tensors = tuple(tensors)
        self.shape = shape
        if 0 in shape:
            raise self.fail(f"is empty: {list(shape)}", "The checkpoint is damaged; fetch it again.")

    def fail(self, cause: str, hint: str | None = None) -> WeightsError:
        """Returns an error that names the matrix."""
        return WeightsError(f"{self.stored.source}: the quantised matrix {self.prefix} {cause}", hint)

    @abstractmethod
    def values(self, start: int, stop: int) -> HostArray:
        """Returns rows `[start, stop)` as float32."""

    def integers(self, start: int, stop: int) -> HostArray:
        """Returns `q` of rows `[start, stop)`, of an integer type; only where there is a `product`."""
        raise NotImplementedError

    def blocks(self, formats: Collection[str]) -> QuantizedRows | None:
        """Returns the rows in blocks of one of the `formats`, `None` if none holds the same numbers."""
        return None

    def check_input(self, scale: float, offset: float, dtype: DataType) -> None:
        """Raises `WeightsError` unless integers of 8 bits can be made with this scale, in `dtype`, and offset."""
        rounded = np.array([scale], np.float32).astype(numpy_dtype(dtype))[0]
        if not (np.isfinite(rounded) and rounded > 0 and offset == int(offset) and -128 <= offset <= 127):
            raise self.fail(
                f"has activations with the scale {scale:g} and the offset {offset:g}, which {dtype.short} cannot be "
                "rounded by",
                "Give a dtype, such as dtype='float32', to run the checkpoint without integers of activations.",
            )

    def product(self, dtype: DataType) -> Product | None:
        """Returns how it is multiplied by integers in a model of `dtype`, `None` if activations stay floats."""
        return None


class IntegerMatrix(QuantMatrix):
    """A matrix whose elements are `scale (q - zero)`, with `q` from `lowest` to `highest`."""

    lowest = -128
    highest = 127

    @abstractmethod
    def integers(self, start: int, stop: int) -> HostArray:
        """Returns `q` of rows `[start, stop)`, of an integer type."""

    @abstractmethod
    def read_groups(self) -> Groups:
        """Reads scales and zeros."""

    def groups(self) -> Groups:
        """Returns scales and zeros, checked."""
        groups = self.read_groups()
        if not np.isfinite(groups.scales).all():
            raise self.fail("has scales that are not finite", "The checkpoint is damaged; fetch it again.")
        columns, count = groups.of_column, groups.scales.shape[1]
        if columns is not None and columns.size and not 0 <= columns.min() <= columns.max() < count:
            raise self.fail(f"has columns in groups {columns.min()} to {columns.max()} of {count}")
        return groups

    def values(self, start: int, stop: int) -> HostArray:
        groups = self.groups()
        out = np.empty((stop - start, self.shape[1]), np.float32)
        step = max(1, _CHUNK // max(1, self.shape[1]))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            scales, zeros = (self._columns(part[_rows(part, first, last)], groups) for part in groups[:2])
            np.multiply(self.integers(first, last) - zeros, scales, out=out[first - start : last - start])
        return out

    def _columns(self, part: HostArray, groups: Groups) -> HostArray:
        """Returns scales or zeros of each column, or of all columns if they are the same."""
        if groups.of_column is not None:
            return part[:, groups.of_column]
        return part if part.shape[1] == 1 else np.repeat(part, groups.size, axis=1)[:, : self.shape[1]]

    def blocks(self, formats: Collection[str]) -> QuantizedRows | None:
        groups, (rows, columns) = self.groups(), self.shape
        kind = "INTEGERS4" if self.highest - self.lowest < 16 else "INTEGERS8"
        if kind in formats:
            return self._in_groups(groups, kind)
        with np.errstate(over="ignore"):
            halves = groups.scales.astype(np.float16)
        uneven = groups.scales.shape[1] > 1 and groups.size % _BLOCK
        if groups.of_column is not None or uneven or columns % _BLOCK or (halves != groups.scales).any() or not rows:
            return None
        lowest, highest = self.lowest - int(groups.zeros.max()), self.highest - int(groups.zeros.min())
        fitting = [name for name, low, high in _FORMATS if low <= lowest and highest <= high and name in formats]
        if not fitting:
            return None
        blocks = []
        step = max(1, _CHUNK // columns)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            zeros = self._columns(groups.zeros[_rows(groups.zeros, first, last)], groups)
            scales = self._columns(halves[_rows(halves, first, last)], groups)
            scales = np.broadcast_to(scales, (last - first, columns))[:, ::_BLOCK]
            blocks.append(_packed(fitting[0], self.integers(first, last) - zeros, scales))
        return QuantizedRows(fitting[0], columns, np.concatenate(blocks))

    def _in_groups(self, groups: Groups, kind: str) -> QuantizedRows | None:
        """Returns rows of int8, float32 scales and float32 zeros; `None` if groups are no equal runs of a row."""
        rows, columns = self.shape
        count = groups.scales.shape[1]
        if (
            groups.of_column is not None
            or not rows
            or columns % count
            or (count > 1 and columns // count != groups.size)
        ):
            return None
        # Unsigned integers become signed ones.
        middle = (self.highest + 1) // 2 if self.lowest == 0 else 0
        parts = [np.broadcast_to(part, (rows, count)).astype(np.float32, "C") for part in groups[:2]]
        parts[1] -= middle
        integers = np.empty((rows, columns), np.int8)
        step = max(1, _CHUNK // columns)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            integers[first:last] = self.integers(first, last) - middle
        blocks = [np.ascontiguousarray(each).view(np.uint8) for each in (integers, *parts)]
        return QuantizedRows(kind, columns, np.concatenate(blocks, 1))


def _rows(part: HostArray, first: int, last: int) -> slice:
    return slice(None) if len(part) == 1 else slice(first, last)


def _packed(kind: str, integers: HostArray, scales: HostArray) -> HostArray:
    """Returns integers `[n, k]` and float16 scales `[n, k / 32]` as blocks of GGUF, uint8 `[n, bytes]`."""
    rows = len(integers)
    groups = integers.reshape(rows, -1, _BLOCK)
    parts: list[HostArray] = [np.ascontiguousarray(scales[:, :, None]).view(np.uint8)]
    if kind == "Q8_0":
        parts.append(groups.astype(np.int8).view(np.uint8))
    else:
        q = (groups + (8 if kind == "Q4_0" else 16)).astype(np.uint8)
        if kind == "Q5_0":
            parts.append(np.packbits(q >> 4, axis=-1, bitorder="little"))
        parts.append(q[..., : _BLOCK // 2] & 15 | q[..., _BLOCK // 2 :] << 4)
    return np.concatenate(parts, -1).reshape(rows, -1)


def floats(stored: SafetensorsLoader, name: str) -> HostArray:
    """Returns a tensor as float32."""
    return to_numpy(stored.get(name)).astype(np.float32)


def unpacked(words: HostArray, bits: int) -> HostArray:
    """Returns the unsigned integers in words of 32 bits, lowest bits first.

    Args:
        words: int32 `[..., m]`.
        bits: 2, 4 or 8.

    Returns:
        uint8 `[..., m, 32 / bits]`.
    """
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    integers: HostArray = (words.view(np.uint32)[..., None] >> shifts & np.uint32(2**bits - 1)).astype(np.uint8)
    return integers
