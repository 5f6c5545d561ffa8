# SPDX-License-Identifier: Apache-2.0
"""What every checkpoint format offers to the models: named tensors, whole or by slice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


class WeightLoader(ABC):
    """Reads tensors of one checkpoint by their Hugging Face names.

    Opening validates the checkpoint's structure and allocates nothing in proportion to it. Every method that is
    given a name the checkpoint lacks raises `WeightsError`, as does any read that fails.
    """

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the tensors come from, for messages: a path."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """All tensor names, in the order in which reading them is cheapest (the order on disk)."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor that `get` returns."""

    @abstractmethod
    def dtype(self, name: str) -> DataType:
        """Element type of the tensor that `get` returns."""

    @abstractmethod
    def nbytes(self, name: str) -> int:
        """Bytes the tensor occupies in the file: the unit of progress."""

    @abstractmethod
    def get(self, name: str) -> torch.Tensor:
        """The whole tensor: fresh CPU memory that the caller owns, contiguous."""

    @abstractmethod
    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        """`get(name).narrow(dim, start, stop - start)` as fresh contiguous memory, reading no more than needed."""

    @abstractmethod
    def close(self) -> None:
        """Close the files. Tensors already returned stay valid. Closing twice is fine."""

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def unknown(self, name: str) -> WeightsError:
        """The error for a name that is not in the checkpoint; names the closest ones that are."""
        from difflib import get_close_matches

        close = get_close_matches(name, list(self.names()), n=3, cutoff=0.8)
        hint = f"The closest names it has: {', '.join(close)}." if close else None
        return WeightsError(f"{self.source} has no tensor {name!r}", hint)


def check_slice(source: str, name: str, shape: tuple[int, ...], dim: int, start: int, stop: int) -> None:
    """Raise `WeightsError` unless `[start, stop)` is a range of dimension `dim` of `shape`."""
    if not 0 <= dim < len(shape) or not 0 <= start <= stop <= shape[dim]:
        raise WeightsError(
            f"{source}: tensor {name!r} of shape {list(shape)} has no slice [{start}:{stop}] in dimension {dim}"
        )
