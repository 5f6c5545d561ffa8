# SPDX-License-Identifier: Apache-2.0
"""Delivers the tensors of a quantised checkpoint under the names of the unquantised one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from atb_core.checkpoint import WeightLoader
from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.quantized import QuantizedRows
from atb_quant.matrix import QuantMatrix

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Vector:
    """A tensor of one dimension that is computed from others.

    Attributes:
        size: number of elements.
        values: returns them as float32.
    """

    size: int
    values: Callable[[], HostArray]


@dataclass(frozen=True)
class Parts:
    """Holds what a scheme found in a checkpoint.

    Attributes:
        matrices: the quantised ones.
        vectors: further tensors by name, which replace stored ones or are added.
        dropped: stored tensors that carry nothing more.
    """

    matrices: Sequence[QuantMatrix]
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()


class QuantLoader(WeightLoader):
    """Reads a quantised checkpoint.

    Args:
        scheme: the scheme's name.
        stored: the checkpoint's tensors, closed with the loader.
        dtype: the floating type in which quantised matrices are delivered; others have the type that is stored.
        parts: what the scheme found.
    """

    def __init__(self, scheme: str, stored: SafetensorsLoader, dtype: DataType, parts: Parts) -> None:
        self.quantization = scheme
        self._stored = stored
        self._dtype = dtype
        self._matrices = {f"{matrix.prefix}.weight": matrix for matrix in parts.matrices}
        self._vectors = parts.vectors
        owners = {tensor: name for name, matrix in self._matrices.items() for tensor in matrix.tensors}
        gone = parts.dropped - owners.keys()
        names = (owners.get(name, name) for name in stored.names() if name not in gone)
        self._names = tuple(dict.fromkeys((*names, *self._vectors)))
        self._expanded: list[str] = []
        self._kept = 0

    @property
    def source(self) -> str:
        return self._stored.source

    def names(self) -> Sequence[str]:
        return self._names

    def unlisted(self) -> frozenset[str]:
        return self._stored.unlisted() - self._matrices.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._vectors:
            return (self._vectors[name].size,)
        return self._matrices[name].shape if name in self._matrices else self._plain(name).shape(name)

    def dtype(self, name: str) -> DataType:
        computed = name in self._matrices or name in self._vectors
        return self._dtype if computed else self._plain(name).dtype(name)

    def nbytes(self, name: str) -> int:
        if name in self._vectors:
            return self._vectors[name].size * self._dtype.itemsize
        stored = self._matrices[name].tensors if name in self._matrices else (name,)
        return sum(self._plain(each).nbytes(each) for each in stored)

    def get(self, name: str) -> HostArray:
        if name in self._vectors:
            return self._typed(self._vectors[name].values())
        if name not in self._matrices:
            return self._plain(name).get(name)
        return self._typed(self._matrices[name].values(0, self._matrices[name].shape[0]))

    def read_into(self, name: str, out: HostArray) -> None:
        if name in self._matrices or name in self._vectors:
            super().read_into(name, out)
        else:
            self._plain(name).read_into(name, out)

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> HostArray:
        if name not in self._matrices and name not in self._vectors:
            return self._plain(name).get_slice(name, dim, start, stop)
        shape = self.shape(name)
        if not 0 <= dim < len(shape) or not 0 <= start <= stop <= shape[dim]:
            raise WeightsError(f"{self.source}: {name!r} of shape {list(shape)} has no [{start}:{stop}] in {dim}")
        if name in self._matrices and dim == 0:
            return self._typed(self._matrices[name].values(start, stop))
        return np.take(self.get(name), range(start, stop), dim)

    def blocks(self, name: str, formats: Collection[str]) -> QuantizedRows | None:
        matrix = self._matrices.get(name)
        rows = None if matrix is None else matrix.blocks(formats)
        if rows is not None:
            self._kept += 1
        elif matrix is not None:
            self._expanded.append(name)
        return rows

    def identity(self) -> list[list[int]]:
        return self._stored.identity()

    def close(self) -> None:
        if self._expanded:
            _log.warning(
                "%s: %d of %d matrices of %s are expanded to %s, as the engine has no blocks for them: %s%s",
                self.source, len(self._expanded), len(self._expanded) + self._kept, self.quantization,
                self._dtype.short, ", ".join(self._expanded[:2]), ", ..." if len(self._expanded) > 2 else "",
            )  # fmt: skip
            self._expanded = []
        self._stored.close()

    def _plain(self, name: str) -> SafetensorsLoader:
        """Returns the loader of the stored tensors."""
        if name not in self._stored:
            raise self.unknown(name)
        return self._stored

    def _typed(self, values: HostArray) -> HostArray:
        with np.errstate(over="ignore"):
            return values.astype(numpy_dtype(self._dtype))
