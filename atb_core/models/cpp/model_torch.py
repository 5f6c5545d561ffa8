# SPDX-License-Identifier: Apache-2.0
"""`ModelTorch`: a model whose graph C++ builds from a JSON string, on the CPU engine.

The graph runs on the same engine as recorded networks do. `core_DecoderModel` is the decoder of llama-like families;
shared libraries may bring models of their own (`load_native_library`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from atb_core.engine.cpu import CpuBackend, CpuStore
from atb_core.engine.extension import load_extension
from atb_core.errors import EngineError
from atb_core.graph.dtype import DataType
from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch

if TYPE_CHECKING:
    from atb_core import _cpu

_Address: TypeAlias = "tuple[int, str, list[int]]"


class ModelTorch:
    """One C++-built model: `set_param`, `set_weight`, `set_kv_cache`, then `execute` or `execute_out` for each step.

    Args:
        model_name: such as `core_DecoderModel`; `model_names()` lists them.
        num_threads: threads of the engine, see `CpuBackend`.

    Every method raises EngineError, naming field, tensor or count, for what does not fit.
    """

    def __init__(self, model_name: str, num_threads: int | None = None) -> None:
        names = load_extension().model_names()
        if model_name not in names:
            raise EngineError(
                f"no C++ model is called {model_name!r}",
                hint=f"There are {', '.join(names)}; load_native_library() adds those of a shared library.",
            )
        self.model_name = model_name
        self._store: CpuStore = CpuBackend(num_threads).new_store()
        self._model: _cpu.Model | None = None
        self._caches: list[torch.Tensor] = []

    def set_param(self, param: str | Mapping[str, Any]) -> None:
        """Builds the graph from its parameters: a JSON string, or what it holds.

        A second call builds another graph, which needs weights and caches again.
        """
        text = param if isinstance(param, str) else json.dumps(dict(param))
        with _engine_errors():
            self._model = load_extension().Model(self.model_name, text, self._store.runtime, self._store.handle)

    @property
    def input_names(self) -> list[str]:
        """What the tensors of `execute` are, in order."""
        return self._built().input_names

    @property
    def weight_names(self) -> list[str]:
        """What the tensors of `set_weight` are, in order."""
        return self._built().weight_names

    def set_weight(self, weights: Sequence[torch.Tensor]) -> None:
        """All weights, in the order of `weight_names`. They are copied into the engine's layout.

        A tensor that is given twice, as a tied embedding is, is kept once.
        """
        given = [_address(f"weight {i}", weight) for i, weight in enumerate(weights)]
        with _engine_errors():
            self._built().set_weights(given)

    def share_weight(self, other: ModelTorch) -> None:
        """Takes the weights of another model with the same weights: prefill and decode of one checkpoint."""
        with _engine_errors():
            self._built().share_weights(other._built())
        self._store = other._store

    def set_kv_cache(self, k_cache: Sequence[torch.Tensor], v_cache: Sequence[torch.Tensor]) -> None:
        """A cache `[blocks, block_size, kv_heads, head_dim]` for keys and one for values of each layer; written."""
        keys = [_address(f"key cache {i}", cache) for i, cache in enumerate(k_cache)]
        values = [_address(f"value cache {i}", cache) for i, cache in enumerate(v_cache)]
        with _engine_errors():
            self._built().set_caches(keys, values)
        self._caches = [*k_cache, *v_cache]

    def execute(self, inputs: Sequence[torch.Tensor | None], param: str = "{}") -> list[torch.Tensor]:
        """Runs one step and returns its outputs.

        Args:
            inputs: in the order of `input_names`; `None`, or any tensor, for what the graph does not read.
            param: the step's JSON; `seqLen`, if it is there, must say what the tensor `seq_len` says.
        """
        given = self._inputs(inputs)
        with _engine_errors():
            wanted = self._built().outputs(given)
        outputs = [torch.empty(shape, dtype=dtype_to_torch(DataType.from_short(dtype))) for dtype, shape in wanted]
        self.execute_out(inputs, outputs, param)
        return outputs

    def execute_out(
        self, inputs: Sequence[torch.Tensor | None], outputs: Sequence[torch.Tensor], param: str = "{}"
    ) -> None:
        """As `execute`, into tensors of the caller."""
        self._check_lengths(inputs, param)
        given = self._inputs(inputs)
        results = [_address(f"output {i}", output) for i, output in enumerate(outputs)]
        with _engine_errors():
            self._built().execute(given, results, param)

    def _built(self) -> _cpu.Model:
        if self._model is None:
            raise EngineError(f"{self.model_name} has no parameters yet", hint="Call set_param(json) first.")
        return self._model

    def _inputs(self, inputs: Sequence[torch.Tensor | None]) -> list[_Address]:
        names = self.input_names
        if len(inputs) != len(names):
            raise EngineError(f"{len(inputs)} inputs were given where {len(names)} are needed: {', '.join(names)}")
        return [_address(name, value) for name, value in zip(names, inputs, strict=True)]

    def _check_lengths(self, inputs: Sequence[torch.Tensor | None], param: str) -> None:
        """The host's copy of the lengths, which a device needs, must agree with the tensor."""
        try:
            step = json.loads(param)
        except ValueError as error:
            raise EngineError(f"the step's parameters are no JSON: {error}") from None
        if not isinstance(step, dict):
            raise EngineError("the step's parameters must be a JSON object")
        names = self.input_names
        if "seqLen" not in step or "seq_len" not in names or len(inputs) != len(names):
            return
        tensor = inputs[names.index("seq_len")]
        if tensor is not None and step["seqLen"] != tensor.tolist():
            raise EngineError(f"seqLen = {step['seqLen']} of the step's JSON differs from seq_len = {tensor.tolist()}")


def load_native_library(path: str | os.PathLike[str]) -> list[str]:
    """Loads a shared library that registers C++ models (`atb_core/model.h`) and returns their names.

    EngineError for a file that is missing, cannot be loaded, was built for other headers or has no models. A library
    is code: load only what you would run.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise EngineError(f"there is no library {file}")
    with _engine_errors():
        names: list[str] = load_extension().load_models(str(file))
    return names


def model_names() -> list[str]:
    """The C++ models of this process."""
    names: list[str] = load_extension().model_names()
    return names


def _address(what: str, tensor: torch.Tensor | None) -> _Address:
    if tensor is None:
        return (0, "int32", [])
    if not isinstance(tensor, torch.Tensor):
        raise EngineError(f"{what} is {type(tensor).__name__}, not a torch.Tensor")
    if not tensor.is_cpu or not tensor.is_contiguous():
        raise EngineError(f"{what} must be a contiguous tensor on the CPU", hint="Use tensor.cpu().contiguous().")
    return (tensor.data_ptr(), dtype_from_torch(tensor.dtype).short, list(tensor.shape))


@contextmanager
def _engine_errors() -> Iterator[None]:
    error_type = load_extension().Error
    try:
        yield
    except error_type as error:
        raise EngineError(str(error)) from None
