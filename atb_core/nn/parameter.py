# SPDX-License-Identifier: Apache-2.0
"""Weights of modules, declared by name and shape; their values are in the engine's weight store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from atb_core.errors import WeightsError
from atb_core.graph.arrays import Array, HostArray, numpy_dtype, to_numpy
from atb_core.graph.dtype import DataType
from atb_core.graph.network import get_default_net
from atb_core.graph.tensor import Tensor

__all__ = ["Parameter"]

Processor = Callable[[HostArray], Array]


@dataclass(frozen=True)
class WeightSource:
    """Tensor of the checkpoint that fills a parameter or a part of it.

    Attributes:
        name: name of the tensor in the checkpoint.
        shape: shape of the tensor in the checkpoint.
        place: index of the part of the parameter that it fills; `None` for sources that are joined along dimension 0.
    """

    name: str
    shape: tuple[int, ...]
    place: tuple[int | slice, ...] | None = None


class BaseParameter:
    """Named weight, declared by shape and element type; it holds no memory.

    Args:
        name: name of the weight in the network.
        shape: declared shape; with `None`, nothing is checked until an engine is given real weights.
        dtype: declared element type; `None` leaves it open.
    """

    def __init__(self, name: str, shape: Sequence[int] | None = None, dtype: DataType | None = None) -> None:
        self.name = name
        self.declared_shape = None if shape is None else tuple(shape)
        self.declared_dtype = dtype
        self.aliases: list[str] = []
        #: False for a matrix that is never quantised, such as the gate of experts: a small error selects others.
        self.quantizable = True
        self._processors: list[Processor] = []

    def __repr__(self) -> str:
        dtype = self.declared_dtype.short if self.declared_dtype else "?"
        return f"{type(self).__name__}({self.name!r}, shape={self.declared_shape}, dtype={dtype})"

    def get_tensor(self) -> Tensor:
        """Returns the weight's symbolic tensor and registers it as a weight of the current network."""
        get_default_net().weights_keys.add(self.name)
        return Tensor(self.name, self.declared_shape, self.declared_dtype)

    def register_processor(self, processor: Processor) -> None:
        """Adds a function that is applied to the real weight before an engine is given it.

        Functions run in the order of registration. Each gets an array of numpy, in the element type that the one before
        returned, and returns an array or a torch tensor; the last one must return the declared shape.
        """
        self._processors.append(processor)

    @property
    def has_processors(self) -> bool:
        """Returns `True` if processors change the real weight, which must then be loaded as a whole."""
        return bool(self._processors)

    def process(self, weight: Array) -> HostArray:
        """Returns `weight` after all processors, contiguous and in the declared element type.

        Raises:
            WeightsError: the result does not have the declared shape.
        """
        array = to_numpy(weight)
        for processor in self._processors:
            array = to_numpy(processor(array))
        if self.declared_shape is not None and array.shape != self.declared_shape:
            raise WeightsError(f"{self.name} has shape {list(array.shape)} where {list(self.declared_shape)} is needed")
        if self.declared_dtype is not None:
            # Numbers that are too large become infinite, as in torch.
            with np.errstate(over="ignore"):
                array = array.astype(numpy_dtype(self.declared_dtype), copy=False)
        return np.ascontiguousarray(array)


class Parameter(BaseParameter):
    """Weight `<prefix>.<suffix>`.

    Args:
        prefix: name of the module in the checkpoint.
        suffix: name of the weight in the module.
        shape: shape of the whole weight; with `sources`, of what they fill together.
        dtype: declared element type; `None` leaves it open.
        sources: tensors of the checkpoint that form the weight; by default one of the same name. A checkpoint may also
            contain the whole weight as one tensor of the parameter's name.
        enable_auto_transpose: accepted as in ATB-Models, without effect: an engine chooses the layout of its weights.
        enable_nd_nz: accepted as in ATB-Models, without effect.
    """

    def __init__(
        self,
        prefix: str,
        suffix: str,
        shape: Sequence[int] | None = None,
        dtype: DataType | None = None,
        sources: Sequence[WeightSource] | None = None,
        *,
        enable_auto_transpose: bool = False,
        enable_nd_nz: bool = False,
    ) -> None:
        super().__init__(_join(prefix, suffix), shape, dtype)
        self.prefix = prefix
        self.suffix = suffix
        if sources is None:
            sources = [WeightSource(self.name, tuple(shape))] if shape is not None else []
        self.sources = tuple(sources)


def _join(prefix: str, suffix: str) -> str:
    return f"{prefix}.{suffix}" if prefix else suffix
