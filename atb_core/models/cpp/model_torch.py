# SPDX-License-Identifier: Apache-2.0
"""`ModelTorch`: a model whose graph C++ builds from a JSON string.

The graph runs on the same engines as recorded networks do: on the processor or on an Ascend device.
`core_DecoderModel` is the decoder of llama-like families; packages of families register names for it with their
defaults (`registration`), and shared libraries may bring models of their own (`load_native_library`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from atb_core.engine import get_backend
from atb_core.engine.extension import load_extension
from atb_core.engine.native import NativeBackend, NativeStore, engine_errors
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.dtype import DataType
from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch
from atb_core.models.cpp import discovery
from atb_core.models.cpp.registration import CppModel

#: Address, dtype, shape, whether the address is a device's, and the address of a copy on the host or 0.
_Address: TypeAlias = "tuple[int, str, list[int], bool, int]"

_NOTHING: _Address = (0, "int32", [], False, 0)

#: Libraries with models that have been loaded. Each extension has a list of models of its own.
_libraries: list[str] = []


class ModelTorch:
    """One C++-built model: `set_param`, `set_weight`, `set_kv_cache`, then `execute` or `execute_out` for each step.

    Args:
        model_name: such as `core_DecoderModel`; `model_names()` lists them.
        num_threads: threads of the CPU engine, see `CpuBackend`.
        backend: what runs the graph, as `get_backend` gives it, or the name: "cpu" if not given, "atb", "atb-sim". On
            the last two, weights, inputs and outputs are copied from and to the host, and caches lie on the device:
            `backend.allocate(shape, dtype)` makes them.

    Every method raises EngineError, naming field, tensor or count, for what does not fit; PluginError if a package
    that registers the name cannot be used, or two contradict each other; BackendUnavailableError if the backend cannot
    be had or does not run such graphs.
    """

    def __init__(
        self, model_name: str, num_threads: int | None = None, *, backend: NativeBackend | str | None = None
    ) -> None:
        self.model_name = model_name
        #: What a package registers under the name; plain for the models of C++ themselves.
        self.registration = _registration(model_name)
        self.backend = _backend(backend, num_threads)
        #: The weights in the engine's layout, by name.
        self.store: NativeStore = self.backend.new_store()
        # The extension's Model.
        self._model: Any = None
        self._input_names: list[str] = []
        # C++ has their addresses.
        self._caches: list[torch.Tensor] = []
        self._constants: dict[str, torch.Tensor] = {}

    def set_param(self, param: str | Mapping[str, Any]) -> None:
        """Builds the graph from its parameters: a JSON string, or what it holds.

        Fields that are not given have the defaults that the package of the model's family registers, if one does.
        A second call builds another graph, which needs weights and caches again.
        """
        name, text = self.registration.graph, param if isinstance(param, str) else json.dumps(dict(param))
        if self.registration.defaults:
            text = json.dumps(self.registration.parameters(_json_object(text, self.model_name)))
        # Another graph may call weights of other shapes the same.
        store: NativeStore = self.backend.new_store()
        extension = self.backend.extension
        with engine_errors(store.error_type):
            if name not in extension.model_names():
                for library in _libraries:
                    extension.load_models(library)
            self._model = extension.Model(name, text, store.handle)
        self.store, self._input_names = store, list(self._model.input_names)
        self._caches, self._constants = [], {}

    @property
    def input_names(self) -> list[str]:
        """What the tensors of `execute` are, in order."""
        self._built()
        return list(self._input_names)

    @property
    def weight_names(self) -> list[str]:
        """What the tensors of `set_weight` are, in order."""
        return list(self._built().weight_names)

    def set_weight(self, weights: Sequence[torch.Tensor]) -> None:
        """All weights, in the order of `weight_names`. They are copied into the engine's layout.

        A tensor that is given twice, as a tied embedding is, is kept once.
        """
        for i, weight in enumerate(weights):
            _check(f"weight {i}", weight, "cpu")
        given = [_described(weight, weight.data_ptr()) for weight in weights]
        with engine_errors(self.store.error_type):
            self._built().set_weights(given)

    def declare_weight(self, names: Sequence[str], weights: Sequence[torch.Tensor]) -> None:
        """In place of `set_weight`, for weights that come one by one: their names in `store`, shapes and dtypes.

        Each is then given to `store.set(name, tensor)`, so that a checkpoint never has to be in memory as a whole.

        Args:
            names: of the caller's choice, in the order of `weight_names`; equal names are one weight.
            weights: tensors like those to come; only shape and dtype are looked at, a meta tensor will do.
        """
        given = [_described(weight, 0) for weight in weights]
        with engine_errors(self.store.error_type):
            self._built().declare_weights(list(names), given)

    def share_weight(self, other: ModelTorch) -> None:
        """Takes the weights of another model with the same weights: prefill and decode of one checkpoint."""
        if other.backend.extension is not self.backend.extension:
            raise EngineError(f"weights of the backend {other.backend.name!r} are none of {self.backend.name!r}")
        with engine_errors(self.store.error_type):
            self._built().share_weights(other._built())
        self.store = other.store

    def set_kv_cache(self, k_cache: Sequence[torch.Tensor], v_cache: Sequence[torch.Tensor]) -> None:
        """A cache `[blocks, block_size, kv_heads, head_dim]` for keys and one for values of each layer; written.

        They lie where the engine computes, see `backend`.
        """
        keys = [self._cache(f"key cache {i}", cache) for i, cache in enumerate(k_cache)]
        values = [self._cache(f"value cache {i}", cache) for i, cache in enumerate(v_cache)]
        with engine_errors(self.store.error_type):
            self._built().set_caches(keys, values)
        self._caches = [*k_cache, *v_cache]

    def set_constant(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Inputs that keep their values from step to step, by name: position tables, a mask. A device copies them once.

        `execute` takes `None` in their place; one that comes with a step is no constant any more.
        """
        names = self.input_names
        unknown = sorted(set(inputs) - set(names))
        if unknown:
            raise EngineError(f"{self.model_name} has no input {', '.join(unknown)}; it has {', '.join(names)}")
        given = [self._input(name, inputs.get(name)) for name in names]
        with engine_errors(self.store.error_type):
            self._built().set_constants(given)
        self._constants.update(inputs)

    def execute(self, inputs: Sequence[torch.Tensor | None], param: str = "{}") -> list[torch.Tensor]:
        """Runs one step and returns its outputs.

        Args:
            inputs: in the order of `input_names`; `None`, or any tensor, for what the graph does not read.
            param: the step's JSON. `seqLen`, if it is there, must say what the tensor `seq_len` says; where that lies
                on a device it has to be there, for ATB reads the lengths on the host too.
        """
        lengths = self._host_lengths(inputs, param)
        given = self._inputs(inputs, lengths)
        with engine_errors(self.store.error_type):
            wanted = self._built().outputs(given)
        outputs = [torch.empty(shape, dtype=dtype_to_torch(DataType.from_short(dtype))) for dtype, shape in wanted]
        self._run(inputs, given, outputs, param)
        return outputs

    def execute_out(
        self, inputs: Sequence[torch.Tensor | None], outputs: Sequence[torch.Tensor], param: str = "{}"
    ) -> None:
        """As `execute`, into tensors of the caller."""
        lengths = self._host_lengths(inputs, param)
        self._run(inputs, self._inputs(inputs, lengths), outputs, param)

    def _run(
        self,
        inputs: Sequence[torch.Tensor | None],
        given: list[_Address],
        outputs: Sequence[torch.Tensor],
        param: str,
    ) -> None:
        results = [self._input(f"output {i}", output) for i, output in enumerate(outputs)]
        self.backend.wait_for_torch([value for value in (*inputs, *outputs) if value is not None])
        with engine_errors(self.store.error_type):
            self._built().execute(given, results, param)

    def nodes(self) -> list[tuple[str, str]]:
        """The graph as C++ wrote it: op and module path of every node, in order."""
        return list(self._built().nodes())

    def _built(self) -> Any:
        if self._model is None:
            raise EngineError(f"{self.model_name} has no parameters yet", hint="Call set_param(json) first.")
        return self._model

    def _inputs(self, inputs: Sequence[torch.Tensor | None], lengths: torch.Tensor | None) -> list[_Address]:
        """What C++ takes; `lengths` is a copy of seq_len on the host."""
        names = self._input_names
        if self._model is None or len(inputs) != len(names):
            self._built()
            raise EngineError(f"{len(inputs)} inputs were given where {len(names)} are needed: {', '.join(names)}")
        given = [self._input(name, value) for name, value in zip(names, inputs, strict=True)]
        if lengths is not None:
            place = names.index("seq_len")
            given[place] = (*given[place][:-1], lengths.data_ptr())
        return given

    def _input(self, what: str, value: torch.Tensor | None) -> _Address:
        if value is None:
            return _NOTHING
        _check(what, value, self.backend.input_device)
        return _described(value, *self.backend.input_address(value))

    def _cache(self, what: str, value: torch.Tensor) -> _Address:
        _check(what, value, self.backend.input_device)
        return _described(value, *self.backend.cache_address(what, value))

    def _host_lengths(self, inputs: Sequence[torch.Tensor | None], param: str) -> torch.Tensor | None:
        """The lengths of the step's JSON, where `seq_len` lies on the device; on the host the two must agree."""
        step = _step_parameters(param)
        names = self._input_names
        if "seq_len" not in names or len(inputs) != len(names):
            return None
        tensor = inputs[names.index("seq_len")]
        if not isinstance(tensor, torch.Tensor):
            return None
        if self.backend.input_address(tensor)[1]:
            return _lengths(step, tensor)
        if "seqLen" in step and step["seqLen"] != tensor.tolist():
            raise EngineError(f"seqLen = {step['seqLen']} of the step's JSON differs from seq_len = {tensor.tolist()}")
        return None


def _backend(given: NativeBackend | str | None, num_threads: int | None) -> NativeBackend:
    if given is None or isinstance(given, str):
        options = {} if num_threads is None else {"num_threads": num_threads}
        backend = get_backend(given or "cpu", **options)
    else:
        backend = given
    if not isinstance(backend, NativeBackend):
        raise BackendUnavailableError(
            f"the backend {backend.name!r} runs no graph that C++ builds", hint='Use "cpu", "atb" or "atb-sim".'
        )
    return backend


def _step_parameters(param: str) -> dict[str, Any]:
    if param == "{}":
        return {}
    try:
        step = json.loads(param)
    except ValueError as error:
        raise EngineError(f"the step's parameters are no JSON: {error}") from None
    if not isinstance(step, dict):
        raise EngineError("the step's parameters must be a JSON object")
    return step


def _lengths(step: Mapping[str, Any], tensor: torch.Tensor) -> torch.Tensor:
    """The host's copy of a tensor of lengths; comparing the two would wait for the device."""
    lengths = step.get("seqLen")
    if lengths is None:
        raise EngineError(
            "seq_len lies on the device, and ATB reads the lengths on the host too",
            hint='Give them in the step\'s JSON: {"seqLen": [...]}.',
        )
    if not isinstance(lengths, list) or not all(type(length) is int and 0 <= length < 2**31 for length in lengths):
        raise EngineError(f"seqLen = {lengths} of the step's JSON is no list of lengths")
    if list(tensor.shape) != [len(lengths)]:
        raise EngineError(f"seqLen of the step's JSON has {len(lengths)} lengths, seq_len {list(tensor.shape)}")
    return torch.tensor(lengths, dtype=torch.int32)


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
    # Other backends load it when one of its models is used there.
    if str(file) not in _libraries:
        _libraries.append(str(file))
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


def _check(what: str, tensor: torch.Tensor, device: str | None) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise EngineError(f"{what} is {type(tensor).__name__}, not a torch.Tensor")
    if (device == "cpu" and not tensor.is_cpu) or not tensor.is_contiguous():
        where = " on the CPU" if device else ""
        raise EngineError(f"{what} must be a contiguous tensor{where}", hint="Use tensor.cpu().contiguous().")


def _described(tensor: torch.Tensor, address: int, on_device: bool = False) -> _Address:
    return (address, dtype_from_torch(tensor.dtype).short, list(tensor.shape), on_device, 0)
