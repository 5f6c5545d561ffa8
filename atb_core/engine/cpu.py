# SPDX-License-Identifier: Apache-2.0
"""Engine that runs networks in C++ on the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from atb_core.engine.checks import check_call, check_integer, check_kind, check_names, check_some
from atb_core.engine.extension import load_extension
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.engine.native import NativeBackend, NativeEngine, NativeProgram, NativeStore
from atb_core.engine.native_graph import NativeGraph
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.arrays import Array
from atb_core.graph.custom_ops import contribution
from atb_core.graph.network import Network
from atb_core.graph.quantized import QuantizedRows
from atb_core.names import QUANTIZATIONS

if TYPE_CHECKING:
    from atb_core._cpu import Runtime


@cache
def _shared_runtime(num_threads: int, isa: str, *options: float) -> Runtime:
    """Returns threads and working memory, which all engines with the same options share."""
    runtime: Runtime = load_extension().Runtime(num_threads, isa, *options)
    return runtime


class CpuBackend(NativeBackend):
    """Backend in C++.

    Args:
        num_threads: number of threads; by default `ATB_NUM_THREADS`, else `OMP_NUM_THREADS`, else the processors that
            this process may use.
        isa: instruction set level (`_cpu.supported_isas()`); by default `ATB_CPU_ISA`, else the best.
        small_work: nodes that touch at most this number of bytes run on one thread, with the same results.

    Attributes:
        num_threads: the number of threads.
        isa: the instruction set level, which affects speed but not results.

    Raises:
        BackendUnavailableError: the extension is missing, or the machine lacks the level.
    """

    name = "cpu"
    packs_caches = True
    quantizations = frozenset(QUANTIZATIONS)
    block_formats = frozenset(("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"))

    def __init__(self, num_threads: int | None = None, isa: str | None = None, small_work: int | None = None) -> None:
        self.extension = extension = load_extension()
        if num_threads is not None:
            check_integer("num_threads", num_threads, 1)
        if isa is not None:
            check_kind("isa", isa, str)
        if small_work is not None:
            check_integer("small_work", small_work, 0, 2**53)
        try:
            threads = extension.resolve_num_threads(num_threads or 0)
            options = () if small_work is None else (small_work,)
            self.runtime = _shared_runtime(threads, isa or extension.detect_isa(), *options)
        except EngineError as error:
            raise BackendUnavailableError(str(error)) from None
        self.num_threads, self.isa = self.runtime.num_threads, self.runtime.isa
        self.packed_layout = self.runtime.packed_layout

    @property
    def place(self) -> Any:
        return self.runtime

    def build(self, network: Network, store: NativeStore | None = None) -> CpuEngine:
        return CpuEngine(network, self.new_store() if store is None else store)


class CpuProgram(NativeProgram):
    """Program of the C++ engine."""

    def make(self, network: Network, store: NativeStore, graph: NativeGraph) -> Any:
        extension = store.backend.extension
        for op in {type(node.op) for node in network.nodes}:
            custom = contribution(op)
            if custom is not None and isinstance(kernel := custom.kernels.get("cpu"), CpuKernel):
                register_cpu_kernel(op, kernel)
        supported = frozenset(extension.op_names())
        for node in network.nodes:
            if node.op.name not in supported:
                raise EngineError(
                    f"{node.op.name} at {node.place}: the cpu engine has no kernel for this op",
                    hint='Register one (docs/custom-kernels.md), or use backend="reference".',
                )
        return extension.Program(store.backend.runtime, store.handle, graph.dims, graph.tensors, graph.nodes)

    def forward(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], runtime_params: Mapping[str, Array]
    ) -> dict[str, Any]:
        if type(inputs) is dict and self.handle.run_arrays(self.inputs, inputs, self.outputs, outputs):
            return dict(outputs)
        return super().forward(inputs, outputs, runtime_params)

    def start(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> CpuSlicedRun:
        """Begins a run in slices, as `CpuEngine.start`."""
        arguments, outputs = self.prepared(inputs, outputs, {})
        return CpuSlicedRun(self.handle.start(*arguments), dict(outputs), (inputs, {**self._bound}))


class CpuSlicedRun(NamedTuple):
    """A run of the C++ engine in slices; `kept` is the memory that it reads."""

    handle: Any
    outputs: dict[str, Any]
    kept: object

    def advance(self, seconds: float) -> dict[str, Any] | None:
        """Goes on for about so long, see `SlicedRun`."""
        return self.outputs if self.handle.advance(seconds) else None


class CpuEngine(NativeEngine):
    """Runs one network in C++ on the processor."""

    program_type = CpuProgram
    slices_runs = True

    def start(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> CpuSlicedRun:
        inputs, outputs, _ = check_call(inputs, outputs, None)
        run: CpuSlicedRun = (self._program or self._specialized(inputs)).start(inputs, outputs)
        return run

    def quantize_weight(self, name: str, value: Array, quantization: str) -> None:
        check_some("weight", self.network, {name: value}, self.network.weights_keys, "cpu")
        self.store.quantize(name, value, quantization)

    def set_weight_blocks(self, name: str, parts: Sequence[QuantizedRows]) -> None:
        check_names("weights", [name], self.network.weights_keys, optional=True)
        weight = self.network.input(name)
        shapes = {(sum(part.source.shape[0] for part in parts), part.columns) for part in parts}
        if weight.shape is None or weight.dtype is None or shapes != {weight.shape}:
            raise EngineError(f"weight {weight} was given blocks of shape {sorted(shapes)}")
        self.store.set_blocks(name, parts, weight.dtype)

    def __str__(self) -> str:
        backend = self.store.backend
        return f"cpu engine, {backend.isa}, threads: {backend.num_threads}\n{self.network}"
