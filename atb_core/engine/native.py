# SPDX-License-Identifier: Apache-2.0
"""What engines in C++ share on the side of Python: checks, the binding of tensors, programs for open shapes.

The C++ side knows addresses, shapes and element types. Tensors are checked here before an address leaves, and kept
alive as long as C++ may use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch

from atb_core.engine.base import Backend, Engine, check_names, check_part, check_real, check_tensor
from atb_core.engine.native_graph import NativeGraph, is_complete, lower
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.specialize import specialize
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch

#: The version of the interface to the Ascend backend's extension modules, which may be built and installed apart from
#: this code; `csrc/bindings/interface.h` has the same number.
INTERFACE_VERSION = 1

#: Programs kept for networks whose shapes are only known when real tensors arrive.
_MAX_PROGRAMS = 16

#: What C++ takes for some tensors: parallel lists, of which the first are their numbers, addresses and shapes.
Arguments = tuple[list[Any], ...]


def check_interface(extension: Any, hint: str) -> None:
    """Raises BackendUnavailableError if an extension module is built for another interface than this code expects."""
    version = getattr(extension, "INTERFACE_VERSION", None)
    if version != INTERFACE_VERSION:
        raise BackendUnavailableError(
            f"{extension.__name__} is built for another version of atb_core: it has interface {version}, and "
            f"atb_core expects {INTERFACE_VERSION}",
            hint=hint,
        )


@contextmanager
def engine_errors(error_type: type[Exception]) -> Iterator[None]:
    """Errors of an extension as EngineError."""
    try:
        yield
    except error_type as error:
        raise EngineError(str(error)) from None


class NativeStore:
    """The weights of one model in C++, in the layouts that its programs want.

    Args:
        handle: the extension's WeightStore.
        error_type: what the extension raises.
    """

    def __init__(self, handle: Any, error_type: type[Exception]) -> None:
        self.handle = handle
        self.error_type = error_type

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.handle.contains(name)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy."""
        count: int = self.handle.bytes
        return count

    def set(self, name: str, value: torch.Tensor) -> None:
        """Copies a contiguous CPU tensor; it may be dropped afterwards. EngineError for any other."""
        dtype = check_real(f"weight {name!r}", value, "cpu").short
        with engine_errors(self.error_type):
            self.handle.set(name, value.data_ptr(), dtype, list(value.shape))

    def set_part(self, name: str, begin: int, value: torch.Tensor, whole: int) -> None:
        """Copies rows `begin`, `begin + 1`, ... of `whole`, as `Engine.set_weight_part` says."""
        dtype = check_real(f"a part of weight {name!r}", value, "cpu").short
        with engine_errors(self.error_type):
            self.handle.set_part(name, begin, value.data_ptr(), dtype, list(value.shape), whole)

    def spec(self, name: str) -> tuple[tuple[int, ...], DataType]:
        """Shape and dtype of a weight that has been set."""
        with engine_errors(self.error_type):
            info: dict[str, Any] = self.handle.info(name)
        return tuple(info["shape"]), DataType.from_short(info["dtype"])


class NativeBackend(Backend):
    """A backend whose engines are an extension's, which takes addresses: knows what the address of a tensor is."""

    #: The extension module, which has `WeightStore(...)` and `Model(name, param, store)`.
    extension: Any
    #: Where inputs and outputs have to lie; None if they may lie on either side.
    input_device: str | None = "cpu"

    @property
    @abstractmethod
    def place(self) -> Any:
        """What the engines run on; models can share weights where it is one and the same."""

    def input_address(self, value: torch.Tensor) -> tuple[int, bool]:
        """The address of a step's input or output, and whether the host must not look there."""
        return value.data_ptr(), False

    def cache_address(self, name: str, value: torch.Tensor) -> tuple[int, bool]:
        """As `input_address`, for a KV cache; EngineError when it does not lie where the engine computes."""
        return value.data_ptr(), False

    def wait_for_torch(self, values: Iterable[torch.Tensor]) -> None:
        """Waits until torch has done what it queued for these tensors."""


class Slot(NamedTuple):
    """An input or output of a program: what has to be checked, and its number there."""

    name: str
    number: int
    dtype: torch.dtype
    tensor: Tensor


class NativeProgram(ABC):
    """A network with known shapes, translated, and the order in which its tensors are bound."""

    def __init__(self, network: Network, store: NativeStore) -> None:
        graph = lower(network)
        self.error_type = store.error_type
        with engine_errors(self.error_type):
            self.handle = self.make(network, store, graph)
        inputs = [t for t in network.inputs if t.name not in network.weights_keys]
        self._all = [_slot(t, graph.ids[t]) for t in inputs]
        self.inputs = self._all
        # In the order in which the program tells the shapes of outputs.
        self.outputs = [_slot(t, graph.ids[t]) for t in sorted(network.outputs, key=graph.ids.__getitem__)]
        self._bound: dict[str, torch.Tensor] = {}

    @abstractmethod
    def make(self, network: Network, store: Any, graph: NativeGraph) -> Any:
        """The extension's program."""

    def arguments(
        self, what: str, slots: Sequence[Slot], values: Mapping[str, torch.Tensor], host: Mapping[str, torch.Tensor]
    ) -> Arguments:
        """Numbers, addresses and shapes in the order of the slots; sizes are checked where they are used."""
        if len(values) != len(slots):
            check_names(f"{what}s", values, [slot.name for slot in slots])
        numbers, pointers, shapes = [], [], []
        for name, number, dtype, declared in slots:
            value = values.get(name)
            if value is None:
                check_names(f"{what}s", values, [slot.name for slot in slots])
            assert value is not None
            if (
                not isinstance(value, torch.Tensor)
                or value.dtype is not dtype
                or not value.is_cpu
                or not value.is_contiguous()
            ):
                check_tensor(what, declared, value, "cpu")
            numbers.append(number)
            pointers.append(value.data_ptr())
            shapes.append(value.shape)
        return numbers, pointers, shapes

    def cache_arguments(self, slots: Sequence[Slot], values: Mapping[str, torch.Tensor]) -> Arguments:
        """As `arguments`, for memory that the engine writes in place."""
        return self.arguments("KV cache", slots, values, {})

    def bind_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        """Gives some inputs their memory for all later runs."""
        slots = [slot for slot in self._all if slot.name in caches]
        with engine_errors(self.error_type):
            self.handle.set(*self.cache_arguments(slots, caches))
        self.keep(caches)

    def bind_constants(self, values: Mapping[str, torch.Tensor]) -> None:
        """Gives some inputs their values for all later runs."""
        slots = [slot for slot in self._all if slot.name in values]
        with engine_errors(self.error_type):
            self.handle.set(*self.arguments("input", slots, values, {}))
        self.keep(values)

    def keep(self, values: Mapping[str, torch.Tensor]) -> None:
        """Notes that these inputs do not come with calls."""
        self._bound.update(values)
        self.inputs = [slot for slot in self._all if slot.name not in self._bound]

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor],
        runtime_params: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Checks everything, runs, returns all outputs."""
        given = self.arguments("input", self.inputs, inputs, runtime_params)
        if len(outputs) < len(self.outputs):
            with engine_errors(self.error_type):
                wanted = self.handle.output_shapes(*given)
            made = zip(self.outputs, wanted, strict=True)
            fresh = {s.name: torch.empty(shape, dtype=s.dtype) for s, shape in made if s.name not in outputs}
            outputs = {**outputs, **fresh}
        results = self.arguments("output", self.outputs, outputs, {})
        with engine_errors(self.error_type):
            self.handle.run(*(a + b for a, b in zip(given, results, strict=True)))
        return dict(outputs)


def _slot(tensor: Tensor, number: int) -> Slot:
    assert tensor.name is not None
    assert tensor.dtype is not None
    return Slot(tensor.name, number, dtype_to_torch(tensor.dtype), tensor)


class NativeEngine(Engine):
    """Runs one network in C++.

    A network whose shapes are known (symbolically) is translated once; the sizes of each call choose a
    plan. Where shapes were left open, one program is made for each combination of real shapes and kept.
    """

    #: What a subclass translates networks to.
    program_type: ClassVar[type[NativeProgram]]
    #: Of tensors that hold a KV cache; None where the program looks at them itself.
    cache_device: str | None = "cpu"

    def __init__(self, network: Network, store: NativeStore) -> None:
        self.network = network
        self.store = store
        self._inputs = {t.name: t for t in network.inputs if t.name and t.name not in network.weights_keys}
        self._outputs = [t.name for t in network.outputs if t.name]
        self._caches: dict[str, torch.Tensor] = {}
        self._constants: dict[str, torch.Tensor] = {}
        self._programs: OrderedDict[object, Any] = OrderedDict()
        self._program: Any = self.program_type(network, store) if is_complete(network) else None

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        check_names("weights", weights, self.network.weights_keys, optional=True)
        for name, value in weights.items():
            check_tensor("weight", self.network.input(name), value, "cpu")
        for name, value in weights.items():
            self.store.set(name, value)

    def set_weight_part(self, name: str, begin: int, value: torch.Tensor) -> None:
        whole = check_part(self.network, name, begin, value, "cpu")[0]
        self.store.set_part(name, begin, value, whole)

    def set_kv_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        check_names("KV caches", caches, self._inputs, optional=True)
        for name, value in caches.items():
            check_tensor("KV cache", self._inputs[name], value, self.cache_device)
        for program in self.programs():
            program.bind_caches(caches)
        self._caches.update(caches)

    def set_constants(self, inputs: Mapping[str, torch.Tensor]) -> None:
        check_names("inputs", inputs, self._inputs, optional=True)
        for name, value in inputs.items():
            check_tensor("input", self._inputs[name], value, "cpu")
        for program in self.programs():
            program.bind_constants(inputs)
        self._constants.update(inputs)

    def forward(
        self,
        inputs: Mapping[str, torch.Tensor],
        outputs: Mapping[str, torch.Tensor] | None = None,
        runtime_params: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        if outputs is None:
            outputs = {}
        elif len(outputs) != len(self._outputs):
            check_names("outputs", outputs, self._outputs, optional=True)
        program = self._program or self._specialized(inputs)
        results: dict[str, torch.Tensor] = program.forward(inputs, outputs, runtime_params or {})
        return results

    def plan_info(self) -> dict[str, int]:
        """What the plan that the last call used has; EngineError before the first."""
        programs = self.programs()
        if not programs:
            raise EngineError("there is no plan before the first forward() of a network with open shapes")
        with engine_errors(self.store.error_type):
            info: dict[str, int] = programs[-1].handle.plan_info()
        return info

    def programs(self) -> list[Any]:
        """The programs made so far, the one that ran last at the end."""
        return [self._program] if self._program else list(self._programs.values())

    def _specialized(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        """The program for inputs of exactly these shapes and dtypes."""
        bound = {**self._caches, **self._constants}
        check_names("inputs", inputs, [name for name in self._inputs if name not in bound])
        values = {**inputs, **bound}
        for name, value in inputs.items():
            check_tensor("input", self._inputs[name], value, "cpu")
        key = tuple((name, values[name].shape, values[name].dtype) for name in self._inputs)
        program = self._programs.get(key)
        if program is not None:
            self._programs.move_to_end(key)
            return program
        program = self._programs[key] = self.specialize(values)
        if len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return program

    def specialize(self, values: Mapping[str, torch.Tensor]) -> Any:
        """A program for the shapes of these inputs, with what is bound."""
        missing = sorted(name for name in self.network.weights_keys if name not in self.store)
        if missing:
            raise EngineError(f"weights are missing: {', '.join(missing)}", hint="Call set_weights() first.")
        specs: dict[str, tuple[Sequence[int], DataType]] = {n: self.store.spec(n) for n in self.network.weights_keys}
        specs |= {name: (tuple(v.shape), dtype_from_torch(v.dtype)) for name, v in values.items()}
        program = self.program_type(specialize(self.network, specs), self.store)
        if self._caches:
            program.bind_caches(self._caches)
        if self._constants:
            program.bind_constants(self._constants)
        return program
