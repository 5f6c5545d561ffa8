# SPDX-License-Identifier: Apache-2.0
"""Gathering, splitting, concatenating and sorting."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.op import as_tuple
from atb_core.graph.ops.movement import Concat, Gather, Split
from atb_core.graph.ops.reduction import Argsort, Sort
from atb_core.graph.tensor import Tensor

__all__ = ["argsort", "cat", "gather", "sort", "split"]


def gather(input_: Tensor, dim: int, index: Tensor, batch_dims: int = 0) -> Tensor:
    """Gathers entries along `dim` by index (int32 or int64); with a table and token ids, an embedding lookup."""
    return record(Gather(dim, batch_dims), (input_, index))[0]


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Splits a tensor along `dim`: an int is the number of equal parts, a list holds the size of each part.

    As in ATB-Models, and unlike in torch, the int is a count and not a size.
    """
    if isinstance(split_size_or_sections, int):
        return record(Split(dim, split_size_or_sections), (tensor,))
    sizes = as_tuple(split_size_or_sections)
    return record(Split(dim, len(sizes), sizes), (tensor,))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenates two tensors along `dim`.

    Raises:
        GraphError: the number of tensors is not 2.
    """
    given = as_tuple(tensors)
    if len(given) != 2:
        raise GraphError(f"cat takes exactly two tensors, not {len(given)}", hint="Concatenate them one after another.")
    return record(Concat(dim), given)[0]


def sort(input_: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Returns the `num` largest entries of the last dimension in descending order, and their int32 indices."""
    values, indices = record(Sort((num,)), (input_,))
    return values, indices


def argsort(input_: Tensor) -> Tensor:
    """Returns the int32 indices that sort the last dimension in ascending order."""
    return record(Argsort(), (input_,))[0]
