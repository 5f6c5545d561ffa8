# SPDX-License-Identifier: Apache-2.0
"""Base of the loaders of the core's own formats; importing this module imports torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic

import torch

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.files import K, StoredTensor
from atb_core.errors import WeightsError


class TableLoader(WeightLoader, Generic[K]):
    """Looks tensors up in `tensors`, which are in the order on disk; `path` is the name for messages."""

    def __init__(self, path: Path, tensors: Mapping[str, StoredTensor[K]]) -> None:
        self.path = path
        self.tensors = tensors

    @property
    def source(self) -> str:
        return str(self.path)

    def names(self) -> Sequence[str]:
        return tuple(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def locate(self, name: str) -> StoredTensor[K]:
        """Returns the place of a tensor; raises `WeightsError` for a name that is not in the table."""
        if name not in self.tensors:
            raise self.unknown(name)
        return self.tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        return self.locate(name).shape

    def nbytes(self, name: str) -> int:
        return self.locate(name).nbytes

    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        shape = self.locate(name).shape
        if not 0 <= dim < len(shape) or not 0 <= start <= stop <= shape[dim]:
            raise WeightsError(
                f"{self.path}: tensor {name!r} of shape {list(shape)} has no slice [{start}:{stop}] in dimension {dim}"
            )
        return self.read_slice(name, dim, start, stop)

    @abstractmethod
    def read_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        """Reads a slice that exists."""


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Returns the bytes of a contiguous tensor, writable."""
    flat = tensor.reshape(-1)
    # numpy has no bfloat16 and torch cannot view an empty tensor as bytes, hence both detours.
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(bytearray())
