# SPDX-License-Identifier: Apache-2.0
"""Delivers the tensors of a quantised checkpoint under the names of the unquantised one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atb_core.checkpoint import WeightLoader
from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.quantized import QuantizedRows
from atb_quant.matrix import QuantMatrix, Vector

_log = logging.getLogger(__name__)


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
        self._vectors = dict(parts.vectors)
        self._integers: set[str] = set()
        owners = {tensor: name for name, matrix in self._matrices.items() for tensor in matrix.tensors}
        counts = Counter(f"{matrix.prefix}.weight" for matrix in parts.matrices)
        counts.update(name for name in self._matrices if name in stored and name not in owners)
        for name in (name for name, count in counts.items() if count > 1):
            raise WeightsError(f"{stored.source} has two matrices {name}, at least one quantised by {scheme}")
        gone = parts.dropped - owners.keys()
        names = (owners.get(name, name) for name in stored.names() if name not in gone)
        self._names = dict.fromkeys((*names, *self._vectors))
        # Names in order, once each.
        self._expanded: dict[str, None] = {}
        self._kept = 0

    @property
    def source(self) -> str:
        return self._stored.source

    def names(self) -> Sequence[str]:
        return tuple(self._names)

    def unlisted(self) -> frozenset[str]:
        return self._stored.unlisted() - self._matrices.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self._vectors:
            return (self._vectors[name].size,)
        return self._matrices[name].shape if name in self._matrices else self._plain(name).shape(name)

    def dtype(self, name: str) -> DataType:
        if name in self._vectors:
            return self._vectors[name].dtype or self._dtype
        if name in self._matrices:
            return DataType.INT8 if name in self._integers else self._dtype
        return self._plain(name).dtype(name)

    def nbytes(self, name: str) -> int:
        if name in self._vectors:
            return self._vectors[name].size * self.dtype(name).itemsize
        stored = self._matrices[name].tensors if name in self._matrices else (name,)
        return sum(self._plain(each).nbytes(each) for each in stored)

    def get(self, name: str) -> HostArray:
        if name in self._vectors:
            return self._typed(name, self._vectors[name].values())
        if name not in self._matrices:
            return self._plain(name).get(name)
        return self._rows(name, 0, self._matrices[name].shape[0])

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
            return self._rows(name, start, stop)
        return np.take(self.get(name), range(start, stop), dim)

    def linear_method(self, prefixes: Sequence[str], dtype: DataType) -> Any:
        if not self.keeps_integers or not all(f"{prefix}.weight" in self._matrices for prefix in prefixes):
            return None
        products = [self._matrices[f"{prefix}.weight"].product(dtype) for prefix in prefixes]
        first = products[0]
        if first is None or any(p is None or (p.method, p.input) != (first.method, first.input) for p in products):
            return None
        from atb_quant.linear_method import LINEAR_METHOD_ROUTER, InferenceMode, QuantTypeV3

        method = LINEAR_METHOD_ROUTER[QuantTypeV3(first.method)][InferenceMode.ANY]()
        for index, (prefix, product) in enumerate(zip(prefixes, products, strict=True)):
            assert product is not None
            # Packed matrices have the scale of their input once.
            new = {f"{prefix}.{s}": v for s, v in product.vectors.items() if index == 0 or not s.startswith("input_")}
            self._integers.add(f"{prefix}.weight")
            self._vectors.update(new)
            self._names.update(dict.fromkeys(new))
            if method.has_bias and f"{prefix}.bias" in self._vectors:
                del self._vectors[f"{prefix}.bias"], self._names[f"{prefix}.bias"]
        return method

    def blocks(self, name: str, formats: Collection[str]) -> QuantizedRows | None:
        matrix = None if name in self._integers else self._matrices.get(name)
        rows = None if matrix is None else matrix.blocks(formats)
        self._kept += rows is not None
        return rows

    def identity(self) -> list[list[int]]:
        return self._stored.identity()

    def close(self) -> None:
        if self._expanded and self.keeps_integers:
            _log.warning(
                "%s: %d of %d matrices of %s are expanded to %s, as the engine has no blocks for them: %s%s",
                self.source, len(self._expanded), len(self._expanded) + self._kept, self.quantization,
                self._dtype.short, ", ".join(list(self._expanded)[:2]), ", ..." if len(self._expanded) > 2 else "",
            )  # fmt: skip
            self._expanded = {}
        self._stored.close()

    def _plain(self, name: str) -> SafetensorsLoader:
        """Returns the loader of the stored tensors."""
        if name not in self._stored:
            raise self.unknown(name)
        return self._stored

    def _rows(self, name: str, start: int, stop: int) -> HostArray:
        matrix = self._matrices[name]
        if name in self._integers:
            return self._typed(name, matrix.integers(start, stop))
        self._expanded[name] = None
        return self._typed(name, matrix.values(start, stop))

    def _typed(self, name: str, values: HostArray) -> HostArray:
        with np.errstate(over="ignore"):
            return values.astype(numpy_dtype(self.dtype(name)))
