# SPDX-License-Identifier: Apache-2.0
"""The engine that runs networks in C++ on the processor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from atb_core.engine.base import Backend, Engine, check_names, check_part, check_tensor
from atb_core.engine.cpu_graph import is_complete, lower
from atb_core.engine.extension import load_extension
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.dtype import DataType
from atb_core.graph.foreign_ops import contribution
from atb_core.graph.network import Network
from atb_core.graph.specialize import specialize
from atb_core.graph.tensor import Tensor
from atb_core.graph.torch_dtypes import dtype_from_torch, dtype_to_torch

if TYPE_CHECKING:
    from atb_core import _cpu

#: Programs kept for networks whose shapes are only known when real tensors arrive.
_MAX_PROGRAMS = 16


class NodeTime(NamedTuple):
    """Time spent in one node since profiling was switched on."""

    label: str
    op: str
    seconds: float
    runs: int


@contextmanager
def _engine_errors() -> Iterator[None]:
    """Errors of the C++ engine as EngineError."""
    from atb_core._cpu import Error

    try:
        yield
    except Error as error:
        raise EngineError(str(error)) from None


@cache
def _shared_runtime(num_threads: int, isa: str, *options: float) -> _cpu.Runtime:
    """One pool of threads and one working memory for all engines of a process that want the same."""
    from atb_core import _cpu

    return _cpu.Runtime(num_threads, isa, *options)


class CpuStore:
    """The weights of one model in the layout of the kernels, each exactly once."""

    def __init__(self, runtime: _cpu.Runtime) -> None:
        from atb_core import _cpu

        self.runtime = runtime
        self.handle = _cpu.WeightStore(runtime)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.handle.contains(name)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy."""
        return self.handle.bytes

    def set(self, name: str, value: torch.Tensor) -> None:
        """Copies a contiguous CPU tensor; it may be dropped afterwards."""
        with _engine_errors():
            self.handle.set(name, value.data_ptr(), dtype_from_torch(value.dtype).short, list(value.shape))

    def set_part(self, name: str, begin: int, value: torch.Tensor, whole: int) -> None:
        """Copies rows `begin`, `begin + 1`, ... of `whole`, as `Engine.set_weight_part` says."""
        with _engine_errors():
            dtype = dtype_from_torch(value.dtype).short
            self.handle.set_part(name, begin, value.data_ptr(), dtype, list(value.shape), whole)

    def spec(self, name: str) -> tuple[tuple[int, ...], DataType]:
        """Shape and dtype of a weight that has been set."""
        with _engine_errors():
            info: dict[str, Any] = self.handle.info(name)
        return tuple(info["shape"]), DataType.from_short(info["dtype"])


class CpuBackend(Backend):
    """Engines in C++.

    Args:
        num_threads: threads of the engine; by default `ATB_NUM_THREADS`, else `OMP_NUM_THREADS`, else the
            processors this process may use.
        isa: the instruction set level (`_cpu.supported_isas()`); by default `ATB_CPU_ISA`, else the best.
        small_work: nodes that touch at most so many bytes run on one thread, which changes no result.

    Raises:
        BackendUnavailableError: the extension is not there, or the machine lacks the level.
    """

    name = "cpu"

    def __init__(self, num_threads: int | None = None, isa: str | None = None, small_work: int | None = None) -> None:
        extension = load_extension()
        if num_threads is not None and num_threads < 1:
            raise EngineError(f"num_threads must be positive, not {num_threads}")
        try:
            threads = extension.resolve_num_threads(num_threads or 0)
            options = () if small_work is None else (small_work,)
            self.runtime = _shared_runtime(threads, isa or extension.detect_isa(), *options)
        except extension.Error as error:
            raise BackendUnavailableError(str(error)) from None

    @property
    def num_threads(self) -> int:
        return self.runtime.num_threads

    @property
    def isa(self) -> str:
        """The instruction set level in use; it changes speed, never results."""
        return self.runtime.isa

    def new_store(self) -> CpuStore:
        return CpuStore(self.runtime)

    def build(self, network: Network, store: CpuStore | None = None) -> CpuEngine:
        return CpuEngine(network, self.new_store() if store is None else store)


class _Slot(NamedTuple):
    """An input or output of a program: what has to be checked, and its number there."""

    name: str
    number: int
    dtype: torch.dtype
    tensor: Tensor


class CpuProgram:
    """A network with known shapes, translated, and the order in which its tensors are bound."""

    def __init__(self, network: Network, store: CpuStore) -> None:
        from atb_core import _cpu

        _register_announced(network)
        _check_ops(network, _cpu.op_names())
        graph = lower(network)
        with _engine_errors():
            self.handle = _cpu.Program(store.runtime, store.handle, graph.dims, graph.tensors, graph.nodes)
        inputs = [t for t in network.inputs if t.name not in network.weights_keys]
        self._all = [_slot(t, graph.ids[t]) for t in inputs]
        self.inputs = self._all
        # In the order in which the program tells the shapes of outputs.
        self.outputs = [_slot(t, graph.ids[t]) for t in sorted(network.outputs, key=graph.ids.__getitem__)]
        self._caches: dict[str, torch.Tensor] = {}

    def bind_caches(self, caches: Mapping[str, torch.Tensor]) -> None:
        """Gives some inputs their memory for all later runs."""
        slots = [slot for slot in self._all if slot.name in caches]
        values = [caches[slot.name] for slot in slots]
        with _engine_errors():
            self.handle.set([s.number for s in slots], [v.data_ptr() for v in values], [tuple(v.shape) for v in values])
        self._caches.update(caches)
        self.inputs = [slot for slot in self._all if slot.name not in self._caches]

    def forward(
        self, inputs: Mapping[str, torch.Tensor], outputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Checks everything, runs, returns all outputs."""
        numbers, pointers, shapes = _arguments("input", self.inputs, inputs)
        if len(outputs) < len(self.outputs):
            with _engine_errors():
                wanted = self.handle.output_shapes(numbers, pointers, shapes)
            made = zip(self.outputs, wanted, strict=True)
            fresh = {s.name: torch.empty(shape, dtype=s.dtype) for s, shape in made if s.name not in outputs}
            outputs = {**outputs, **fresh}
        out_numbers, out_pointers, out_shapes = _arguments("output", self.outputs, outputs)
        with _engine_errors():
            self.handle.run(numbers + out_numbers, pointers + out_pointers, shapes + out_shapes)
        return dict(outputs)


def _register_announced(network: Network) -> None:
    """Loads the kernels that plugins announce for the network's ops; each is loaded when it is first needed."""
    for op in {type(node.op) for node in network.nodes}:
        found = contribution(op)
        kernel = None if found is None else found.kernels.get("cpu")
        if kernel is not None:
            assert isinstance(kernel, CpuKernel)  # checked when it was announced
            register_cpu_kernel(op, kernel)


def _check_ops(network: Network, known: Sequence[str]) -> None:
    for node in network.nodes:
        if node.op.name not in known:
            raise EngineError(
                f"{node.op.name} at {node.place}: the cpu engine has no kernel for this op",
                hint='Register one (docs/custom-kernels.md), or use backend="reference".',
            )


def _slot(tensor: Tensor, number: int) -> _Slot:
    assert tensor.name is not None
    assert tensor.dtype is not None
    return _Slot(tensor.name, number, dtype_to_torch(tensor.dtype), tensor)


def _arguments(
    what: str, slots: Sequence[_Slot], values: Mapping[str, torch.Tensor]
) -> tuple[list[int], list[int], list[torch.Size]]:
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


class CpuEngine(Engine):
    """Runs one network in C++.

    A network whose shapes are known (symbolically) is translated once; the sizes of each call choose a
    plan. Where shapes were left open, one program is made for each combination of real shapes and kept.
    """

    def __init__(self, network: Network, store: CpuStore) -> None:
        self.network = network
        self.store = store
        self._inputs = {t.name: t for t in network.inputs if t.name and t.name not in network.weights_keys}
        self._outputs = [t.name for t in network.outputs if t.name]
        self._caches: dict[str, torch.Tensor] = {}
        self._profiling = False
        self._programs: OrderedDict[object, CpuProgram] = OrderedDict()
        self._program = CpuProgram(network, store) if is_complete(network) else None

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
            check_tensor("KV cache", self._inputs[name], value, "cpu")
        for program in self._all_programs():
            program.bind_caches(caches)
        self._caches.update(caches)

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
        return (self._program or self._specialized(inputs)).forward(inputs, outputs)

    def set_profiling(self, on: bool) -> None:
        """Starts (from zero) or stops measuring the time of every node."""
        self._profiling = on
        for program in self._all_programs():
            program.handle.set_profiling(on)

    def profile(self) -> list[NodeTime]:
        """The nodes that have run since profiling was switched on, in order."""
        return [NodeTime(*row) for program in self._all_programs() for row in program.handle.profile()]

    def plan_info(self) -> dict[str, int]:
        """Steps and bytes of working memory of the plan that the last call used; EngineError before the first."""
        programs = self._all_programs()
        if not programs:
            raise EngineError("there is no plan before the first forward() of a network with open shapes")
        with _engine_errors():
            return programs[-1].handle.plan_info()

    def __str__(self) -> str:
        runtime = self.store.runtime
        return f"cpu engine, {runtime.isa}, threads: {runtime.num_threads}\n{self.network}"

    def _all_programs(self) -> list[CpuProgram]:
        return [self._program] if self._program else list(self._programs.values())

    def _specialized(self, inputs: Mapping[str, torch.Tensor]) -> CpuProgram:
        """The program for inputs of exactly these shapes and dtypes."""
        check_names("inputs", inputs, [name for name in self._inputs if name not in self._caches])
        values = {**inputs, **self._caches}
        for name, value in inputs.items():
            check_tensor("input", self._inputs[name], value, "cpu")
        key = tuple((name, values[name].shape, values[name].dtype) for name in self._inputs)
        program = self._programs.get(key)
        if program is not None:
            self._programs.move_to_end(key)
            return program
        program = self._programs[key] = self._specialize(values)
        if len(self._programs) > _MAX_PROGRAMS:
            self._programs.popitem(last=False)
        return program

    def _specialize(self, values: Mapping[str, torch.Tensor]) -> CpuProgram:
        missing = sorted(name for name in self.network.weights_keys if name not in self.store)
        if missing:
            raise EngineError(f"weights are missing: {', '.join(missing)}", hint="Call set_weights() first.")
        specs: dict[str, tuple[Sequence[int], DataType]] = {n: self.store.spec(n) for n in self.network.weights_keys}
        specs |= {name: (tuple(v.shape), dtype_from_torch(v.dtype)) for name, v in values.items()}
        program = CpuProgram(specialize(self.network, specs), self.store)
        if self._caches:
            program.bind_caches(self._caches)
        program.handle.set_profiling(self._profiling)
        return program
