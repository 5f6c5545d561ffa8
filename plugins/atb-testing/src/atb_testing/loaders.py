# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with a difference: one that notes what is read, one that lacks a tensor or has one too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import torch

from atb_core.checkpoint.base import WeightLoader
from atb_core.graph.dtype import DataType
from atb_core.graph.torch_dtypes import dtype_from_torch


class AlteredLoader(WeightLoader):
    """`inner` without the tensors in `without` and with those in `extra`; counts in `reads` what was read.

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
        return self.inner.source

    def names(self) -> list[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        if name in self.extra:
            return tuple(self.extra[name].shape)
        return self.inner.shape(self._known(name))

    def dtype(self, name: str) -> DataType:
        if name in self.extra:
            return dtype_from_torch(self.extra[name].dtype)
        return self.inner.dtype(self._known(name))

    def nbytes(self, name: str) -> int:
        if name in self.extra:
            return self.extra[name].numel() * self.extra[name].element_size()
        return self.inner.nbytes(self._known(name))

    def get(self, name: str) -> torch.Tensor:
        self.reads[name] += 1
        return self.extra[name].clone() if name in self.extra else self.inner.get(self._known(name))

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        self.reads[name] += 1
        if name in self.extra:
            return self.extra[name].narrow(dim, start, stop - start).clone()
        return self.inner.get_slice(self._known(name), dim, start, stop)

    def close(self) -> None:
        return

    def _known(self, name: str) -> str:
        if name not in self._names:
            raise self.unknown(name)
        return name
