# SPDX-License-Identifier: Apache-2.0
"""Moving elements: gathering, splitting, joining, sorting."""

from __future__ import annotations

from collections.abc import Sequence

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.ops.movement import Concat, Gather, Split
from atb_core.graph.ops.reduction import Argsort, Sort
from atb_core.graph.tensor import Tensor


def gather(input_: Tensor, dim: int, index: Tensor, batch_dims: int = 0) -> Tensor:
    """Returns entries of `input_` along `dim` by index (int32 or int64); of a table by ids, the embeddings."""
    return record(Gather(dim, batch_dims), (input_, index))[0]


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Returns parts along `dim`: an int is the number of equal parts, a list has their sizes.

    torch's int is a size; that of ATB-Models, which this follows, is a count.
    """
    if isinstance(split_size_or_sections, int):
        return record(Split(dim, split_size_or_sections), (tensor,))
    sizes = tuple(split_size_or_sections)
    return record(Split(dim, len(sizes), sizes), (tensor,))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Returns two tensors joined along `dim`."""
    if len(tensors) != 2:
        raise GraphError(f"cat joins exactly two tensors, not {len(tensors)}", hint="join them one after another")
    return record(Concat(dim), tuple(tensors))[0]


def sort(input_: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Returns the `num` largest entries of the last dimension, descending: values and int32 indices."""
    values, indices = record(Sort((num,)), (input_,))
    return values, indices


def argsort(input_: Tensor) -> Tensor:
    """Returns the int32 indices that sort the last dimension in ascending order."""
    return record(Argsort(), (input_,))[0]
