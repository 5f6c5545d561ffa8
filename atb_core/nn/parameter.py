# SPDX-License-Identifier: Apache-2.0
"""Weights of a module, known by name and shape; their values live in the engine's weight store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from atb_core.errors import WeightsError
from atb_core.graph.dtype import DataType
from atb_core.graph.network import get_default_net
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_to_torch

Processor = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class WeightSource:
    """One tensor of the checkpoint that goes into a parameter.

    `place` indexes the part of the parameter that it fills; `None` in sources that are joined along dimension 0.
    """

    name: str
    shape: tuple[int, ...]
    place: tuple[int | slice, ...] | None = None


class BaseParameter(torch.nn.Parameter):
    """A named weight. It takes part in torch's module bookkeeping as a meta tensor and holds no memory.

    `shape` may be `None`: then nothing is checked until real weights are given to an engine.
    """

    # Assigned here because torch's own attribute of this name cannot be set.
    name: str = ""

    def __new__(
        cls, name: str, shape: Sequence[int] | None = None, dtype: DataType | None = None, **_: Any
    ) -> BaseParameter:
        torch_dtype = torch.float32 if dtype is None else dtype_to_torch(dtype)
        data = torch.empty(tuple(shape or (0,)), dtype=torch_dtype, device="meta")
        return super().__new__(cls, data, False)

    def __init__(self, name: str, shape: Sequence[int] | None = None, dtype: DataType | None = None) -> None:
        self.name = name
        self.declared_shape = None if shape is None else tuple(shape)
        self.declared_dtype = dtype
        self.aliases: list[str] = []
        self._processors: list[Processor] = []

    def __repr__(self) -> str:  # type: ignore[override]
        dtype = self.declared_dtype.short if self.declared_dtype else "?"
        return f"{type(self).__name__}({self.name!r}, shape={self.declared_shape}, dtype={dtype})"

    def get_tensor(self) -> Tensor:
        """The weight in the network that is being recorded, which notes it as one of its weights."""
        get_default_net().weights_keys.add(self.name)
        return Tensor(self.name, self.declared_shape, self.declared_dtype)

    def register_processor(self, processor: Processor) -> None:
        """Adds a function applied to the real weight (CPU) before an engine gets it, in order of registration.

        It must return a tensor of the declared shape.
        """
        self._processors.append(processor)

    @property
    def has_processors(self) -> bool:
        """Whether the real weight is changed before an engine gets it, for which it has to be whole."""
        return bool(self._processors)

    def process(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` after all processors, contiguous and in the declared element type.

        Raises:
            WeightsError: the result does not have the declared shape.
        """
        for processor in self._processors:
            tensor = processor(tensor)
        if self.declared_shape is not None and tuple(tensor.shape) != self.declared_shape:
            raise WeightsError(
                f"{self.name} has shape {list(tensor.shape)} where {list(self.declared_shape)} is needed"
            )
        if self.declared_dtype is not None:
            tensor = tensor.to(dtype_to_torch(self.declared_dtype))
        return tensor.contiguous()


class Parameter(BaseParameter):
    """The weight `<prefix>.<suffix>`.

    Args:
        shape: sizes of the whole weight; with `sources`, the sizes that these fill.
        sources: the checkpoint's tensors that make it up; by default one of the same name. A checkpoint may also
            hold the whole weight as one tensor of the parameter's name.
        enable_auto_transpose, enable_nd_nz: accepted as in ATB-Models, and without effect: an engine decides on the
            layout of its weights.
    """

    def __new__(
        cls,
        prefix: str,
        suffix: str,
        shape: Sequence[int] | None = None,
        dtype: DataType | None = None,
        sources: Sequence[WeightSource] | None = None,
        *,
        enable_auto_transpose: bool = False,
        enable_nd_nz: bool = False,
    ) -> Parameter:
        return super().__new__(cls, _join(prefix, suffix), shape, dtype)  # type: ignore[return-value]

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
