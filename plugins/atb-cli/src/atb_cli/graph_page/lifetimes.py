# SPDX-License-Identifier: Apache-2.0
"""Tells from when until when a network's intermediate values have to be kept, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atb_core.graph import Network, Tensor

# Their outputs share memory with an input.
_VIEWS = ("Reshape", "Split", "ReshapeAndCache")


class Lifetime(NamedTuple):
    """A value that needs memory of its own.

    Attributes:
        tensor: the value.
        first: position of the node that produces it.
        last: position of the last node that reads it or a view of it; the number of nodes for an output.
        bytes: its size for each choice of sizes; -1 where a dimension has none.
    """

    tensor: Tensor
    first: int
    last: int
    bytes: tuple[int, ...]


def lifetimes(network: Network, sizes: Sequence[Mapping[str, int]]) -> list[Lifetime]:
    """Returns the values that nodes make, in their order; `sizes` are values of named dimensions."""
    owner: dict[Tensor, Tensor] = {}
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for place, node in enumerate(network.nodes):
        for tensor in node.inputs:
            last[owner.get(tensor, tensor)] = place
        for tensor in node.outputs:
            if node.op.name in _VIEWS:
                owner[tensor] = owner.get(node.inputs[0], node.inputs[0])
            else:
                first[tensor] = last[tensor] = place
    for tensor in network.outputs:
        last[owner.get(tensor, tensor)] = len(network.nodes)
    return [
        Lifetime(tensor, start, last[tensor], tuple(nbytes(tensor, each) for each in sizes))
        for tensor, start in first.items()
    ]


def nbytes(tensor: Tensor, sizes: Mapping[str, int]) -> int:
    """Returns the bytes of a tensor, -1 if its type, or the size of a dimension, is not known."""
    from atb_core.graph.dim import Dim

    if tensor.shape is None or tensor.dtype is None:
        return -1
    try:
        dims = [size.evaluate(sizes) if isinstance(size, Dim) else size for size in tensor.shape]
    except KeyError:
        return -1
    return prod(dims) * tensor.dtype.itemsize
