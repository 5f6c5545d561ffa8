# SPDX-License-Identifier: Apache-2.0
"""A loader for tests of loading: it records reads, and lacks tensors or has additional ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch

from atb_core.checkpoint.base import WeightLoader
from atb_core.graph.arrays import Array, data_type
from atb_core.graph.dtype import DataType


class AlteredLoader(WeightLoader):
    """Wraps `inner` without the tensors in `without` and with those in `extra`; `reads` counts reads by name.

    Closing it leaves `inner` open.
    """

    def __init__(
        self, inner: WeightLoader, without: Collection[str] = (), extra: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        self.inner = inner
        self.extra = dict(extra or {})
        self.reads: Counter[str] = Counter()
        self._names = [name for name in inner.names() if name not in without] + list(self.extra)

    @property
    def source(self) -> str:
        """Returns the inner loader's source."""
        return self.inner.source

    def names(self) -> list[str]:
        """Returns the remaining and the additional names."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the tensor's shape."""
        if name in self.extra:
            return tuple(self.extra[name].shape)
        return self.inner.shape(self._present(name))

    def dtype(self, name: str) -> DataType:
        """Returns the tensor's type."""
        if name in self.extra:
            return data_type(self.extra[name].dtype)
        return self.inner.dtype(self._present(name))

    def nbytes(self, name: str) -> int:
        """Returns the tensor's size."""
        if name in self.extra:
            return self.extra[name].numel() * self.extra[name].element_size()
        return self.inner.nbytes(self._present(name))

    def get(self, name: str) -> Array:
        """Reads and counts."""
        self.reads[name] += 1
        return self.extra[name].clone() if name in self.extra else self.inner.get(self._present(name))

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> Array:
        """Reads a slice and counts."""
        self.reads[name] += 1
        if name in self.extra:
            return self.extra[name].narrow(dim, start, stop - start).clone()
        return self.inner.get_slice(self._present(name), dim, start, stop)

    def close(self) -> None:
        """Does nothing."""
        return

    def _present(self, name: str) -> str:
        if name not in self._names:
            raise self.unknown(name)
        return name
