# SPDX-License-Identifier: Apache-2.0
"""Models whose graph C++ builds from a JSON string, on the engines of recorded networks.

`core_DecoderModel` is the decoder of llama-like families; packages of families register names for it with their
defaults (`registration`), and shared libraries may add models (`load_native_library`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from atb_core.engine import get_backend
from atb_core.engine.checks import address_of, check_name, check_real, check_written
from atb_core.engine.extension import load_extension
from atb_core.engine.native import NativeBackend, NativeStore
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.arrays import Array, dtype_of, is_tensor, numpy_dtype, to_torch
from atb_core.graph.dtype import DataType
from atb_core.names import pip_install
from atb_core.nn.parameter import BaseParameter
from atb_cpp_models import libraries, registered
from atb_cpp_models.registration import CppModel

_Item = TypeVar("_Item")
#: Address, dtype, shape, true for an address on the device, and the address of a copy on the host or 0.
_Address: TypeAlias = "tuple[int, str, list[int], bool, int]"

_NOTHING: _Address = (0, "int32", [], False, 0)
#: Gives tensors without elements an address, because C++ takes 0 for an input that was not given.
_EMPTY = np.empty(64)


@dataclass
class _Built:
    """A graph and the tensors whose addresses it has. A step keeps it alive if another thread builds a new one."""

    model: Any  # the extension's Model
    input_names: list[str]
    is_decode: bool
    caches: list[Array] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)


class ModelTorch:
    """One C++-built model: `set_param`, `set_weight`, `set_kv_cache`, then `execute` or `execute_out` for each step.

    Every method raises EngineError, which names the field, tensor or count, for an argument that does not fit.

    Args:
        model_name: such as `core_DecoderModel`; `model_names()` lists them.
        num_threads: threads of the CPU engine, see `CpuBackend`.
        backend: a backend or its name: "cpu" by default, "atb" or "atb-sim". On the last two, weights, inputs and
            outputs are copied from and to the host, and `backend.allocate(shape, dtype)` makes caches on the device.

    Raises:
        PluginError: a package that registers the name cannot be used, or two contradict each other.
        BackendUnavailableError: the backend is not available or does not run such graphs.
    """

    def __init__(
        self, model_name: str, num_threads: int | None = None, *, backend: NativeBackend | str | None = None
    ) -> None:
        self.model_name = model_name
        #: A package's registration of the name; without defaults for the models of C++ themselves.
        self.registration = _registration(model_name)
        self.backend = _backend(backend, num_threads)
        #: The weights in the engine's layout, by name.
        self.store: NativeStore = self.backend.new_store()
        self._graph: _Built | None = None

    def set_param(self, param: str | Mapping[str, Any]) -> None:
        """Builds the graph from its parameters: a JSON object, as a string or a dict.

        Fields that are not given have the defaults of the registration. A second call builds another graph, which
        needs weights and caches again.
        """
        name, what = self.registration.graph, f"the parameters of {self.model_name}"
        text = _json_text(what, param)
        if self.registration.defaults:
            text = _json_text(what, self.registration.parameters(_json_object(what, text)))
        check_name(what, text)
        # Another graph may have weights of other shapes under the same names.
        store: NativeStore = self.backend.new_store()
        extension = self.backend.extension
        if name not in extension.model_names():
            for library in libraries.loaded:
                extension.load_models(library)
        model = extension.Model(name, text, store.handle)
        names = list(model.input_names)
        is_decode = "block_table" in names and not _json_object(what, text).get("isPrefill")
        self.store, self._graph = store, _Built(model, names, is_decode)

    @property
    def input_names(self) -> list[str]:
        """Returns the names of the tensors of `execute`, in order."""
        return list(self._built().input_names)

    @property
    def weight_names(self) -> list[str]:
        """Returns the names of the tensors of `set_weight`, in order."""
        return list(self._built().model.weight_names)

    def set_weight(self, weights: Iterable[Array]) -> None:
        """Copies all weights into the engine's layout.

        A tensor that is given twice, such as a tied embedding, is kept once. Weights may be set again, with the same
        shapes and the same ones given twice.

        Args:
            weights: in the order of `weight_names`, contiguous, on the host, in the type of the parameter `torchDtype`;
                docs/cpp-models.md has the shapes.
        """
        weights = _weights(weights, "cpu")
        self._built().model.set_weights([_described(weight, address_of(weight)) for weight in weights])

    def declare_weight(self, names: Iterable[str], weights: Iterable[Array | BaseParameter]) -> None:
        """Declares the weights' names in `store`, shapes and dtypes, as an alternative to `set_weight`.

        `store.set(name, tensor)` then sets one at a time, so that a checkpoint is never in memory as a whole.

        Args:
            names: of the caller's choice, in the order of `weight_names`; equal names are one weight.
            weights: parameters or tensors of the shapes and dtypes to come, for example meta tensors.
        """
        given = [_declared(i, weight) for i, weight in enumerate(_listed("weights", weights))]
        names = _listed("names", names)
        for place, name in enumerate(names):
            check_name(f"the name of weight {place}", name)
        self._built().model.declare_weights(names, given)

    def share_weight(self, other: ModelTorch) -> None:
        """Shares the weights of another model, for prefill and decode of one checkpoint."""
        if not isinstance(other, ModelTorch):
            raise EngineError(f"weights are shared with a ModelTorch, not with {type(other).__name__}")
        if other.backend.extension is not self.backend.extension:
            raise EngineError(f"{self.backend.name!r} cannot share weights of the backend {other.backend.name!r}")
        if other.backend.place != self.backend.place:
            raise EngineError(
                "the models that are to share weights run on different threads or devices",
                hint="Give both the same backend: ModelTorch(name, backend=other.backend).",
            )
        self._built().model.share_weights(other._built().model)
        self.store = other.store

    def set_kv_cache(self, k_cache: Iterable[Array], v_cache: Iterable[Array]) -> None:
        """Binds a cache `[blocks, block_size, kv_heads, head_dim]` for keys and one for values of each layer.

        Steps write them. They have the type of the parameter `torchDtype` and are in the memory of the backend.
        """
        k_cache, v_cache = _listed("key caches", k_cache), _listed("value caches", v_cache)
        keys = [self._cache(f"key cache {i}", cache) for i, cache in enumerate(k_cache)]
        values = [self._cache(f"value cache {i}", cache) for i, cache in enumerate(v_cache)]
        self.backend.wait_for_torch([*k_cache, *v_cache])
        built = self._built()
        built.model.set_caches(keys, values)
        built.caches = [*k_cache, *v_cache]

    def set_constant(self, inputs: Mapping[str, Array]) -> None:
        """Binds inputs that keep their values from step to step, such as position tables; a device copies them once.

        `execute` takes `None` in their place. An input that is given with a step, or that the engine refused, is no
        constant any more.
        """
        if not isinstance(inputs, Mapping):
            raise EngineError(f"constants are given by name, in a dict, not in {type(inputs).__name__}")
        built = self._built()
        inputs, names = dict(inputs), built.input_names
        unknown = sorted(str(name) for name in inputs if name not in names)
        if unknown:
            raise EngineError(f"{self.model_name} has no input {', '.join(unknown)}; it has {', '.join(names)}")
        given = [self._input(name, inputs.get(name)) for name in names]
        built.model.set_constants(given)
        built.constants.update(inputs)

    def execute(self, inputs: Iterable[Array | None], param: str = "{}") -> list[Array]:
        """Runs one step and returns its outputs, on the host.

        Args:
            inputs: in the order of `input_names`; `None` for what the graph does not read and for constants.
                docs/cpp-models.md has the decoder's, with shapes and types.
            param: the step's JSON. `seqLen`, if given, must equal the tensor `seq_len`; it is required if that is on a
                device, because ATB reads the lengths on the host too.
        """
        return self._run(inputs, None, param)

    def execute_out(self, inputs: Iterable[Array | None], outputs: Iterable[Array], param: str = "{}") -> None:
        """Runs one step as `execute` does, into tensors of the shapes and types that `execute` returns."""
        self._run(inputs, _listed("outputs", outputs), param)

    def nodes(self) -> list[tuple[str, str]]:
        """Returns op and module path of every node of the graph, in order."""
        return list(self._built().model.nodes())

    def _run(self, inputs: Iterable[Array | None], outputs: list[Array] | None, param: str) -> list[Array]:
        # These locals keep alive what C++ has the addresses of.
        built, inputs = self._built(), _listed("inputs", inputs)
        step = {} if param == "{}" else _json_object("the step's parameters", param)
        names = built.input_names
        if len(inputs) != len(names):
            raise EngineError(f"{len(inputs)} inputs were given where {len(names)} are needed: {', '.join(names)}")
        given = [self._input(name, value) for name, value in zip(names, inputs, strict=True)]
        place = names.index("seq_len") if "seq_len" in names else 0
        lengths = inputs[place] if "seq_len" in names else None
        if lengths is not None and given[place][3]:
            lengths = _lengths(step, lengths)
            given[place] = (*given[place][:-1], address_of(lengths))
        elif lengths is not None and "seqLen" in step and step["seqLen"] != lengths.tolist():
            raise EngineError(f"seqLen = {step['seqLen']} of the step's JSON differs from seq_len = {lengths.tolist()}")
        if built.is_decode and lengths is not None and (shortest := min(lengths.flatten().tolist(), default=1)) < 1:
            raise EngineError(f"seq_len has {shortest}; in decode the least is 1, as the new token counts too")
        if outputs is None:
            wanted = built.model.outputs(given)
            outputs = [np.empty(shape, numpy_dtype(DataType.from_short(d))) for d, shape in wanted]
            if any(map(is_tensor, inputs)):
                outputs = [to_torch(output) for output in outputs]
        for i, output in enumerate(outputs):
            check_written(f"output {i}", output)
        results = [self._input(f"output {i}", output) for i, output in enumerate(outputs)]
        self.backend.wait_for_torch([value for value in (*inputs, *outputs) if value is not None])
        built.model.execute(given, results, param)
        return outputs

    def _built(self) -> _Built:
        if self._graph is None:
            raise EngineError(f"{self.model_name} has no parameters yet", hint="Call set_param(json) first.")
        return self._graph

    def _input(self, what: str, value: Array | None) -> _Address:
        if value is None:
            return _NOTHING
        check_real(what, value, self.backend.input_device)
        return _described(value, *self.backend.input_address(value))

    def _cache(self, what: str, value: Array) -> _Address:
        check_real(what, value, self.backend.input_device)
        check_written(what, value)
        return _described(value, *self.backend.cache_address(what, value))


def _backend(given: NativeBackend | str | None, num_threads: int | None) -> NativeBackend:
    if given is None or isinstance(given, str):
        options = {} if num_threads is None else {"num_threads": num_threads}
        backend = get_backend("cpu" if given is None else given, **options)
    elif num_threads is not None:
        raise EngineError("num_threads and a backend were given", hint="Give one of the two.")
    else:
        backend = given
    if not isinstance(backend, NativeBackend):
        name = getattr(backend, "name", backend)
        raise BackendUnavailableError(
            f"the backend {name!r} runs no graph that C++ builds", hint='Use "cpu", "atb" or "atb-sim".'
        )
    return backend


def _lengths(step: Mapping[str, Any], tensor: Array) -> Array:
    """Returns the host's copy of the tensor of lengths, unchecked: comparing the two would wait for the device."""
    lengths = step.get("seqLen")
    if lengths is None:
        raise EngineError(
            "seq_len is on the device, and ATB reads the lengths on the host too",
            hint='Give them in the step\'s JSON: {"seqLen": [...]}.',
        )
    if not isinstance(lengths, list) or not all(type(length) is int and 0 <= length < 2**31 for length in lengths):
        raise EngineError(f"seqLen = {lengths} of the step's JSON is no list of lengths")
    if list(tensor.shape) != [len(lengths)]:
        raise EngineError(f"seqLen of the step's JSON has {len(lengths)} lengths, seq_len {list(tensor.shape)}")
    return np.array(lengths, dtype=np.int32)


def _registration(name: str) -> CppModel:
    """Returns the registration of a name; EngineError lists the names that exist and the package to install."""
    native = load_extension().model_names()
    packages = registered.registered_names()
    if name in native and name in packages:
        raise EngineError(
            f"the C++ model {name!r} is registered by {' and '.join(packages[name])} and also by a library"
        )
    if name in native:
        return CppModel(graph=name)
    registration = registered.registered(name)
    if registration is None:
        names = [*native, *(f"{other} ({', '.join(owners)})" for other, owners in packages.items())]
        if wanted := registered.known_packages(name):
            hint = " or ".join(map(pip_install, wanted))
        else:
            hint = "load_native_library() adds those of a shared library."
        raise EngineError(f"no C++ model is called {name!r}; there are {', '.join(names)}", hint=hint)
    if registration.graph not in native:
        raise EngineError(
            f"the C++ model {name!r} is registered for the graph of {registration.graph!r}, which does not exist",
            hint="Load the library that has it with load_native_library() first.",
        )
    return registration


def _json_text(what: str, param: str | Mapping[str, Any]) -> str:
    if isinstance(param, str):
        return param
    if not isinstance(param, Mapping):
        raise EngineError(f"{what} are a JSON string or a dict, not {type(param).__name__}")
    try:
        return json.dumps(dict(param), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EngineError(f"{what} are no JSON: {error}") from None


def _json_object(what: str, text: str) -> dict[str, Any]:
    if not isinstance(text, str):
        raise EngineError(f"{what} are a JSON string, not {type(text).__name__}")
    try:
        given = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{what} are no JSON: {error}") from None
    if not isinstance(given, dict):
        raise EngineError(f"{what} must be a JSON object")
    return given


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    distinct: dict[str, Any] = {}
    for key, value in pairs:
        if key in distinct:
            raise ValueError(f"the key {key!r} occurs twice")
        distinct[key] = value
    return distinct


def _listed(what: str, given: Iterable[_Item]) -> list[_Item]:
    # A list, because an iterator would create its tensors again, and C++ has their addresses.
    if isinstance(given, (str, Mapping, np.ndarray)) or is_tensor(given) or not isinstance(given, Iterable):
        raise EngineError(f"{what} are given in a list, in order, not in {type(given).__name__}")
    return list(given)


def _weights(given: Iterable[Array], device: str) -> list[Array]:
    weights = _listed("weights", given)
    for i, weight in enumerate(weights):
        check_real(f"weight {i}", weight, device)
    return weights


def _declared(place: int, weight: Array | BaseParameter) -> _Address:
    if isinstance(weight, BaseParameter) and weight.declared_shape is not None and weight.declared_dtype is not None:
        return (0, weight.declared_dtype.short, list(weight.declared_shape), False, 0)
    dtype = check_real(f"weight {place}", weight, contiguous=False)  # type: ignore[arg-type]
    return (0, dtype.short, list(weight.shape), False, 0)  # type: ignore[union-attr]


def _described(value: Array, address: int, on_device: bool = False) -> _Address:
    if 0 in value.shape and address == 0:
        address = address_of(_EMPTY)
    return (address, dtype_of(value).short, list(value.shape), on_device, 0)
