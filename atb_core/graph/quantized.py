# SPDX-License-Identifier: Apache-2.0
"""Weights of 8 bits and fewer: a property of a weight, not of the ops that use it.

A network has the weight in the model's dtype; how an engine stores it is chosen when it is set. Ops, passes and layers
therefore know nothing of quantisation, and the pieces of a merged matrix may have different formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from atb_core.graph.op import RealTensor

if TYPE_CHECKING:
    import numpy as np

    from atb_core.graph.network import Network

__all__ = ["FileRows", "QuantizedRows"]


@dataclass(frozen=True)
class FileRows:
    """Blocks of rows in a file, which stays open until its loader is closed."""

    shape: tuple[int, ...]  # rows, and bytes of a row
    descriptor: int
    offset: int  # of the first byte
    read: Callable[[], np.ndarray]  # reads them, or raises the error that says why it cannot


@dataclass(frozen=True)
class QuantizedRows:
    """Rows of a matrix in the blocks of a format, as a file has them.

    Attributes:
        format: name of the format, of GGUF: `Q4_K`; `INTEGERS4`, `INTEGERS8`: int8, float32 scales and zeros of groups.
        columns: elements of a row.
        source: the blocks, or where an engine can read them.
    """

    format: str
    columns: int
    source: np.ndarray | FileRows

    @cached_property
    def blocks(self) -> np.ndarray:
        """Returns uint8 `[rows, bytes of a row]`, contiguous."""
        return self.source.read() if isinstance(self.source, FileRows) else self.source


def quantizable_weights(network: Network) -> set[str]:
    """Returns the names of weights of two dimensions that are used as the matrix `[n, k]` of a linear or by rows."""
    names = {name for name in network.weights_keys if len(network.input(name).shape or ()) == 2}
    for node in network.nodes:
        for operand, tensor in zip(node.op.operands, node.inputs, strict=True):
            if tensor.name in names and operand not in node.op.row_operands:
                names.discard(tensor.name)
    return names


def quantized_values(weight: RealTensor, quantization: str) -> RealTensor:
    """Returns what a matrix `[n, k]` becomes in one of `QUANTIZATIONS`, in its own dtype.

    int8 has a float32 scale for each row, the largest magnitude / 127. int4 has a scale and a minimum for each group of
    32 elements of a row, both float16: the group's range / 15, and its smallest element.
    """
    return {"int8": _int8, "int4": _int4}[quantization](weight.float()).to(weight.dtype)


def _int8(weight: RealTensor) -> RealTensor:
    scale = weight.abs().amax(1, keepdim=True)
    scale = (scale / 127).where(scale >= 2.0**-100, 0)
    inverse = (1 / scale).where(scale != 0, 0)
    return (weight * inverse).round().clamp(-127, 127) * scale


def _int4(weight: RealTensor) -> RealTensor:
    rows, columns = weight.shape
    whole = columns // 32 * 32
    parts = [part for part in (weight[:, :whole].reshape(-1, 32), weight[:, whole:]) if part.numel()]
    done = []
    for part in parts:
        low = part.amin(1, keepdim=True).half().float()
        scale = ((part.amax(1, keepdim=True) - part.amin(1, keepdim=True)) / 15).half().float()
        values = ((part - low) / scale).round().clamp(0, 15).where(scale != 0, 0)
        done.append((scale * values + low).reshape(rows, -1))
    import torch

    return torch.cat(done, 1)
