# SPDX-License-Identifier: Apache-2.0
"""`ModelTorch`: a model whose graph C++ builds from a JSON string, on the CPU engine.

The graph runs on the same engine as recorded networks do. `core_DecoderModel` is the decoder of llama-like families;
packages of families register names for it with their defaults (`registration`), and shared libraries may bring models
of their own (`load_native_library`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from atb_core.engine.cpu import CpuBackend, CpuStore
from atb_core.engine.extension import load_extension
from atb_core.engine.native import engine_errors
from atb_core.errors import EngineError
from atb_core.graph.dtype import DataType
from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch
from atb_core.models.cpp import discovery
from atb_core.models.cpp.registration import CppModel

if TYPE_CHECKING:
    from atb_core import _cpu

_Address: TypeAlias = "tuple[int, str, list[int]]"


class ModelTorch:
    """One C++-built model: `set_param`, `set_weight`, `set_kv_cache`, then `execute` or `execute_out` for each step.

    Args:
        model_name: such as `core_DecoderModel`; `model_names()` lists them.
        num_threads: threads of the engine, see `CpuBackend`.
        backend: takes the place of `num_threads`: an engine's settings that exist already.

    Every method raises EngineError, naming field, tensor or count, for what does not fit; PluginError if a package
    that registers the name cannot be used, or two contradict each other.
    """

    def __init__(self, model_name: str, num_threads: int | None = None, *, backend: CpuBackend | None = None) -> None:
        self.model_name = model_name
        #: What a package registers under the name; plain for the models of C++ themselves.
        self.registration = _registration(model_name)
        self._backend = backend or CpuBackend(num_threads)
        #: The weights in the engine's layout, by name.
        self.store: CpuStore = self._backend.new_store()
        self._model: _cpu.Model | None = None
        self._input_names: list[str] = []
        self._caches: list[torch.Tensor] = []

    def set_param(self, param: str | Mapping[str, Any]) -> None:
        """Builds the graph from its parameters: a JSON string, or what it holds.

        Fields that are not given have the defaults that the package of the model's family registers, if one does.
        A second call builds another graph, which needs weights and caches again.
        """
        name, text = self.registration.graph, param if isinstance(param, str) else json.dumps(dict(param))
        if self.registration.defaults:
            text = json.dumps(self.registration.parameters(_json_object(text, self.model_name)))
        # Another graph may call weights of other shapes the same.
        store = self._backend.new_store()
        with engine_errors(store.error_type):
            self._model = load_extension().Model(name, text, store.runtime, store.handle)
        self.store, self._input_names = store, self._model.input_names

    @property
    def input_names(self) -> list[str]:
        """What the tensors of `execute` are, in order."""
        self._built()
        return list(self._input_names)

    @property
    def weight_names(self) -> list[str]:
        """What the tensors of `set_weight` are, in order."""
        return self._built().weight_names

    def set_weight(self, weights: Sequence[torch.Tensor]) -> None:
        """All weights, in the order of `weight_names`. They are copied into the engine's layout.

        A tensor that is given twice, as a tied embedding is, is kept once.
        """
        given = [_address(f"weight {i}", weight) for i, weight in enumerate(weights)]
        with engine_errors(self.store.error_type):
            self._built().set_weights(given)

    def declare_weight(self, names: Sequence[str], weights: Sequence[torch.Tensor]) -> None:
        """In place of `set_weight`, for weights that come one by one: their names in `store`, shapes and dtypes.

        Each is then given to `store.set(name, tensor)`, so that a checkpoint never has to be in memory as a whole.

        Args:
            names: of the caller's choice, in the order of `weight_names`; equal names are one weight.
            weights: tensors like those to come; only shape and dtype are looked at, a meta tensor will do.
        """
        given = [(0, dtype_from_torch(weight.dtype).short, list(weight.shape)) for weight in weights]
        with engine_errors(self.store.error_type):
            self._built().declare_weights(list(names), given)

    def share_weight(self, other: ModelTorch) -> None:
        """Takes the weights of another model with the same weights: prefill and decode of one checkpoint."""
        with engine_errors(self.store.error_type):
            self._built().share_weights(other._built())
        self.store = other.store

    def set_kv_cache(self, k_cache: Sequence[torch.Tensor], v_cache: Sequence[torch.Tensor]) -> None:
        """A cache `[blocks, block_size, kv_heads, head_dim]` for keys and one for values of each layer; written."""
        keys = [_address(f"key cache {i}", cache) for i, cache in enumerate(k_cache)]
        values = [_address(f"value cache {i}", cache) for i, cache in enumerate(v_cache)]
        with engine_errors(self.store.error_type):
            self._built().set_caches(keys, values)
        self._caches = [*k_cache, *v_cache]

    def execute(self, inputs: Sequence[torch.Tensor | None], param: str = "{}") -> list[torch.Tensor]:
        """Runs one step and returns its outputs.

        Args:
            inputs: in the order of `input_names`; `None`, or any tensor, for what the graph does not read.
            param: the step's JSON; `seqLen`, if it is there, must say what the tensor `seq_len` says.
        """
        given = self._inputs(inputs)
        with engine_errors(self.store.error_type):
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
        with engine_errors(self.store.error_type):
            self._built().execute(given, results, param)

    def nodes(self) -> list[tuple[str, str]]:
        """The graph as C++ wrote it: op and module path of every node, in order."""
        return self._built().nodes()

    def _built(self) -> _cpu.Model:
        if self._model is None:
            raise EngineError(f"{self.model_name} has no parameters yet", hint="Call set_param(json) first.")
        return self._model

    def _inputs(self, inputs: Sequence[torch.Tensor | None]) -> list[_Address]:
        names = self._input_names
        if self._model is None or len(inputs) != len(names):
            self._built()
            raise EngineError(f"{len(inputs)} inputs were given where {len(names)} are needed: {', '.join(names)}")
        return [_address(name, value) for name, value in zip(names, inputs, strict=True)]

    def _check_lengths(self, inputs: Sequence[torch.Tensor | None], param: str) -> None:
        """The host's copy of the lengths, which a device needs, must agree with the tensor."""
        if param == "{}":
            return
        try:
            step = json.loads(param)
        except ValueError as error:
            raise EngineError(f"the step's parameters are no JSON: {error}") from None
        if not isinstance(step, dict):
            raise EngineError("the step's parameters must be a JSON object")
        names = self._input_names
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
    with engine_errors(load_extension().Error):
        names: list[str] = load_extension().load_models(str(file))
    return names


def model_names() -> list[str]:
    """The C++ models of this process, and the names that installed packages register; imports no package."""
    return sorted({*load_extension().model_names(), *discovery.registered_names()})


def _registration(name: str) -> CppModel:
    """What stands behind a model's name; EngineError lists the known ones and the package to install."""
    native = load_extension().model_names()
    packages = discovery.registered_names()
    if name in native and name in packages:
        raise EngineError(
            f"the C++ model {name!r} is both registered by {' and '.join(packages[name])} and brought by a library"
        )
    if name in native:
        return CppModel(graph=name)
    found = discovery.registered(name)
    if found is None:
        known = [*native, *(f"{other} ({', '.join(owners)})" for other, owners in packages.items())]
        if wanted := discovery.known_packages(name):
            hint = f"pip install {wanted[0]}" + "".join(f" (or {other})" for other in wanted[1:])
        else:
            hint = "load_native_library() adds those of a shared library."
        raise EngineError(f"no C++ model is called {name!r}; there are {', '.join(known)}", hint=hint)
    if found.graph not in native:
        raise EngineError(
            f"the C++ model {name!r} is registered for the graph of {found.graph!r}, which is not there",
            hint="Load the library that brings it with load_native_library() first.",
        )
    return found


def _json_object(text: str, name: str) -> dict[str, Any]:
    """The user's parameters, to be merged with defaults. Whatever Python reads as JSON, C++ checks again."""
    try:
        given = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the parameters of {name} are no JSON: {error}") from None
    if not isinstance(given, dict):
        raise EngineError(f"the parameters of {name} must be a JSON object")
    return given


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} occurs twice")
        found[key] = value
    return found


def _address(what: str, tensor: torch.Tensor | None) -> _Address:
    if tensor is None:
        return (0, "int32", [])
    if not isinstance(tensor, torch.Tensor):
        raise EngineError(f"{what} is {type(tensor).__name__}, not a torch.Tensor")
    if not tensor.is_cpu or not tensor.is_contiguous():
        raise EngineError(f"{what} must be a contiguous tensor on the CPU", hint="Use tensor.cpu().contiguous().")
    return (tensor.data_ptr(), dtype_from_torch(tensor.dtype).short, list(tensor.shape))
