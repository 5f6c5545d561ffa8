# SPDX-License-Identifier: Apache-2.0
"""The backends `atb` and `atb-sim`: networks as ATB operations on an Ascend device or on the simulator.

Weights and working memory are in device memory. Inputs and outputs may be in host memory, from or to which they are
copied, or in device memory.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from atb_ascend.integers import FORMATS, Integers, joined, quantized
from atb_ascend.report import missing_for_backend, unavailable
from atb_ascend.segments import segments
from atb_ascend.switches import local_rank, switch
from atb_core.engine.checks import (
    address_of,
    check_dtype,
    check_integer,
    check_names,
    check_real,
    check_some,
    check_tensor,
    memory_size,
)
from atb_core.engine.native import (
    INTERFACE_VERSION,
    Arguments,
    NativeBackend,
    NativeEngine,
    NativeProgram,
    NativeStore,
    Slot,
)
from atb_core.engine.native_graph import NativeGraph
from atb_core.errors import BackendUnavailableError, EngineError
from atb_core.graph.arrays import Array, dtype_to_torch, is_tensor, numpy_dtype, to_numpy, to_torch
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.quantized import QuantizedRows
from atb_core.names import QUANTIZATIONS, command, pip_install

_log = logging.getLogger(__name__)

#: Extension modules of the same C++ source, built with ATB and with the simulator.
_DEVICE_MODULE = "atb_core._atb"
_SIMULATOR_MODULE = "atb_sim._atb_sim"
_INSTALL_SIMULATOR = f"{pip_install('atb-sim')}."
_REBUILD_DEVICE_MODULE = "Build atb-core again from its sources, for the version that is installed."
#: Columns of a block in the layout FRACTAL_NZ for 16-bit elements.
_NZ_BLOCK = 16


class AtbBackend(NativeBackend):
    """Backend that runs ATB operations.

    Args:
        num_threads: accepted so that backends are exchangeable; not used.
        simulator: runs on the simulator of ATB, which needs neither CANN nor a device.
        device_id: index among the devices that are visible to this process; by default `LOCAL_RANK`, which programs
            set that start a process for each device, else 0.
        execute_async: launches operations in a second thread while the first one prepares the next ones; by default the
            value of `ATB_OPERATION_EXECUTE_ASYNC` (0 or 1).

    Raises:
        BackendUnavailableError: software is missing, or the device is not supported; the message names it.
    """

    name = "atb"
    # ATB returns a matrix product in the type of its inputs.
    float32_logits = False
    masks_new_tokens = True
    copies_constants = True

    def __init__(
        self,
        num_threads: int | None = None,
        *,
        simulator: bool = False,
        device_id: int | None = None,
        execute_async: bool | None = None,
    ) -> None:
        device_id = local_rank() if device_id is None else device_id
        check_integer("device_id", device_id, 0)
        self.simulator = simulator
        self.device_id = device_id
        self.input_device = "cpu" if simulator else None
        self.extension = load_simulator() if simulator else _load_device_extension()
        if execute_async is None:
            execute_async = switch("ATB_OPERATION_EXECUTE_ASYNC")
        blocking, transpose = switch("ASCEND_LAUNCH_BLOCKING"), switch("ATB_LLM_ENABLE_AUTO_TRANSPOSE")
        try:
            self.device = _shared_device(self.extension, simulator, device_id, bool(execute_async), blocking, transpose)
        except BackendUnavailableError:
            raise
        except EngineError as error:
            hint = "ATB_SIM_DEVICES is the number of simulated devices." if simulator and device_id else None
            raise BackendUnavailableError(str(error), hint=hint) from None
        # The simulator raises ValueError for its environment variables.
        except ValueError as error:
            raise EngineError(str(error), hint="Correct or unset the environment variable.") from None

    @property
    def place(self) -> Any:
        return self.device

    @property
    def quantizations(self) -> frozenset[str]:  # type: ignore[override]
        """Returns the formats to which the engines quantise: on a 300I Duo that with a scale for each row alone."""
        return frozenset(("int8",) if self.device.info["nz"] else QUANTIZATIONS)

    @property
    def block_formats(self) -> frozenset[str]:  # type: ignore[override]
        """Returns the formats of quantised matrices that stay integers: none on a 300I Duo, which has no groups."""
        return frozenset() if self.device.info["nz"] else frozenset(FORMATS)

    @property
    def soc_name(self) -> str:
        """Returns the driver's name of the chip."""
        return str(self.device.soc_name)

    def block_size(self, head_dim: int) -> int:
        # Where one size serves steps of one and of several new tokens, that one.
        choices = [(size, several) for several in (True, False) for size in (128, 64, 32, 16)]
        return next((c[0] for c in choices if not self.device.block_problem(head_dim, *c)), 128)

    def check_model(self, dtype: DataType, head_dim: int) -> None:
        info = self.device.info
        where = f"{info['name']} ({self.soc_name})"
        if dtype is DataType.FLOAT:
            backend = "atb-sim" if self.simulator else self.name
            raise BackendUnavailableError(
                f"backend {backend!r}: ATB has no float32 for many elementwise operations",
                hint="Run the model in float16" + (" or bfloat16." if info["bf16"] else "."),
            )
        if dtype is DataType.BF16 and not info["bf16"]:
            raise BackendUnavailableError(f"{where} has no bfloat16", hint='Run the model with dtype="float16".')
        if head_dim > info["max_head_size"] or (info["nz"] and head_dim % _NZ_BLOCK):
            limit = f"at most {info['max_head_size']}" + (f" and multiples of {_NZ_BLOCK}" if info["nz"] else "")
            raise BackendUnavailableError(f"{where} takes heads of {limit} elements; this model's have {head_dim}")

    def mixed_steps_problem(self, head_dim: int, block_size: int) -> str | None:
        problem = self.device.block_problem(head_dim, block_size, several=True)
        return f"its cache has {problem}" if problem else None

    def build(self, network: Network, store: NativeStore | None = None) -> AtbEngine:
        return AtbEngine(network, self.new_store() if store is None else store)

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> Any:
        known = check_dtype("a key/value cache", dtype)
        count = memory_size("a key/value cache", shape, known)
        if not self.simulator:
            import torch

            try:
                zeros = torch.zeros(shape, dtype=dtype_to_torch(known), device=f"npu:{self.device_id}")
            # Among them is torch.OutOfMemoryError.
            except RuntimeError as error:
                lines = str(error).splitlines() or [type(error).__name__]
                problem = f"device {self.device_id} has no {count >> 20} MiB for a key/value cache: {lines[0]}"
                raise EngineError(problem) from error
            # The engine must not write before torch has executed the operation from its queue.
            _npu().current_stream().synchronize()
            return zeros
        memory = self.extension.Memory(self.device, count)
        # The host can read the simulator's device memory.
        window = self.extension.sim.window(memory.address, count, memory).view(numpy_dtype(known)).reshape(shape)
        return window if isinstance(dtype, DataType) else to_torch(window)

    def input_address(self, value: Array) -> tuple[int, bool]:
        address = self._device_address(value)
        return (address_of(value), False) if address is None else (address, True)

    def cache_address(self, name: str, value: Array) -> tuple[int, bool]:
        address = self._device_address(value)
        if address is None:
            raise EngineError(
                f"the KV cache {name!r} is not in device memory",
                hint="Allocate it with backend.allocate(), or ModelRunner.allocate_kv_cache().",
            )
        # Attention on this device has to take the cache's blocks.
        problem = value.ndim == 4 and self.device.block_problem(value.shape[3], value.shape[1], several=False)
        if problem:
            best = self.block_size(value.shape[3])
            raise EngineError(
                f"the KV cache {name!r} has {problem}", hint=f"Choose another block_size, such as {best}."
            )
        return address, True

    def _device_address(self, value: Array) -> int | None:
        """Returns the address on the device, `None` for a tensor in host memory."""
        if self.simulator:
            return self.extension.sim.device_address(address_of(value)) or None
        return value.data_ptr() if is_tensor(value) and value.device.type == "npu" else None

    def wait_for_torch(self, values: Iterable[Array]) -> None:
        # Torch's queued operations must be on the stream before those of the engine.
        if not all(value.is_cpu for value in filter(is_tensor, values)):
            _npu().current_stream().synchronize()

    def available_memory(self) -> int | None:
        return int(self.device.memory[0])


class AtbProgram(NativeProgram):
    """Program of ATB operations, one for each segment of the network."""

    backend: AtbBackend

    def make(self, network: Network, store: NativeStore, graph: NativeGraph) -> Any:
        self.backend = store.backend
        numbers = [number for number, segment in enumerate(segments(network)) for _ in segment]
        return self.backend.extension.Program(store.handle, graph.dims, graph.tensors, graph.nodes, numbers)

    def arguments(
        self, what: str, slots: Sequence[Slot], values: Mapping[str, Array], host: Mapping[str, Array]
    ) -> Arguments:
        for name, value in values.items():
            check_real(f"{what} {name!r}", value)
        places = {name: self.backend.input_address(value) for name, value in values.items()}
        if not any(on_device for _, on_device in places.values()):
            return (*super().arguments(what, slots, values, host), [False] * len(slots), [0] * len(slots))
        check_names(f"{what}s", values, [slot.name for slot in slots])
        # ATB reads some inputs in host memory; the caller passes copies of those that are in device memory.
        for slot in (slot for slot in slots if slot.name in host):
            check_tensor("the host's copy of", slot.tensor, host[slot.name], "cpu")
        copies = [address_of(host[slot.name]) if slot.name in host else 0 for slot in slots]
        addresses, on_device = zip(*(places[slot.name] for slot in slots), strict=True)
        self.backend.wait_for_torch(values.values())
        for slot in slots:
            check_tensor(what, slot.tensor, values[slot.name])
        shapes = [values[slot.name].shape for slot in slots]
        return [slot.number for slot in slots], list(addresses), shapes, list(on_device), copies

    def set(self, what: str, slots: Sequence[Slot], values: Mapping[str, Array]) -> None:
        for slot in slots:
            value = values[slot.name]
            if what == "KV cache":
                self.backend.cache_address(slot.name, value)
            arguments = self.arguments(what, [slot], {slot.name: value}, {})
            on_device = arguments[3][0]
            (self.handle.set if on_device else self.handle.set_constants)(*arguments)


class AtbEngine(NativeEngine):
    """Runs one network as ATB operations."""

    program_type = AtbProgram
    cache_device = None

    @property
    def clock(self) -> str:  # type: ignore[override]
        """Returns the name of the device, whose events give the times of nodes."""
        backend = self.store.backend
        return f"simulated {backend.soc_name}: not a card's time" if backend.simulator else backend.soc_name

    def quantize_weight(self, name: str, value: Array, quantization: str) -> None:
        check_some("weight", self.network, {name: value}, self.network.weights_keys, "cpu")
        if quantization not in self.store.backend.quantizations:
            known = ", ".join(sorted(self.store.backend.quantizations))
            where = self.store.backend.device.info["name"]
            raise EngineError(f"weight {name!r}: {where} has no {quantization}", hint=f"It has {known}.")
        dtype = check_real(f"weight {name!r}", value, "cpu")
        self._set_integers(name, quantized(to_numpy(value), dtype, quantization), lambda: value)

    def set_weight_blocks(self, name: str, parts: Sequence[QuantizedRows]) -> None:
        check_names("weights", [name], self.network.weights_keys, optional=True)
        dtype = self.network.input(name).dtype
        assert dtype is not None
        matrix = joined(parts, dtype)
        self._set_integers(name, matrix, matrix.values)

    def _set_integers(self, name: str, matrix: Integers, values: Callable[[], Array]) -> None:
        """Sets a matrix of integers; as floats where the device cannot multiply by it, or its rows are read."""
        readers = {node.op.name for node in self.network.nodes if self.network.input(name) in node.inputs}
        problem = self.store.backend.device.quant_problem(matrix.dtype.short, *matrix.shape, matrix.bits, matrix.group)
        problem = problem or ("" if matrix.scales_fit else "it cannot hold the scales")
        if problem or readers != {"Linear"}:
            other = ", ".join(sorted(readers - {"Linear"}))
            _log.warning("weight %r stays %s: %s", name, matrix.dtype.short, problem or f"{other} reads its rows")
            self.set_weights({name: values()})
            return
        arrays = matrix.arranged()
        places = [0 if each is None else each.ctypes.data for each in arrays]
        self.store.handle.set_quantized(
            name, matrix.dtype.short, list(matrix.shape), matrix.bits, matrix.group, *places
        )

    def __str__(self) -> str:
        backend = self.store.backend
        where = f"simulated {backend.soc_name}" if backend.simulator else backend.soc_name
        return f"atb engine, {where}\n{self.network}"


def check_interface(extension: Any, hint: str) -> None:
    """Raises BackendUnavailableError if an extension module has another version of the interface."""
    version = getattr(extension, "INTERFACE_VERSION", None)
    if version != INTERFACE_VERSION:
        raise BackendUnavailableError(
            f"{extension.__name__} is built for another version of atb_core: it has interface {version}, and "
            f"atb_core expects {INTERFACE_VERSION}",
            hint=hint,
        )


def load_simulator() -> Any:
    """Returns the extension module of the simulator, from the distribution atb-sim.

    Raises:
        BackendUnavailableError: atb-sim is not installed, does not load, or is built for another version of atb_core.
    """
    try:
        extension = importlib.import_module(_SIMULATOR_MODULE)
    except ImportError as error:
        what = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be loaded"
        problem = f"backend 'atb-sim' needs the distribution atb-sim, which {what}: {error}"
        raise BackendUnavailableError(problem, hint=_INSTALL_SIMULATOR) from error
    check_interface(extension, f"Install atb-sim for this version of atb-core: {_INSTALL_SIMULATOR}")
    return extension


def _load_device_extension() -> Any:
    """Returns the extension module of ATB.

    Raises:
        BackendUnavailableError: names what is missing, or the module is built for another version of atb_core.
    """
    if missing := missing_for_backend():
        raise unavailable(missing)
    extension = importlib.import_module(_DEVICE_MODULE)
    check_interface(extension, _REBUILD_DEVICE_MODULE)
    return extension


@cache
def _shared_device(
    extension: Any, simulator: bool, device_id: int, execute_async: bool, launch_blocking: bool, auto_transpose: bool
) -> Any:
    """Returns stream, context and working memory, which all models with the same options share."""
    stream = 0 if simulator else _torch_stream(device_id)
    device = extension.Device(device_id, stream, execute_async, launch_blocking, auto_transpose)
    # Handlers run in reverse order, so this one runs before torch_npu's, which destroys the stream.
    atexit.register(_shut, weakref.ref(device))
    return device


def _shut(reference: weakref.ref[Any]) -> None:
    if (device := reference()) is not None:
        device.shut()


def _npu() -> Any:
    """Returns torch_npu's module of devices and streams."""
    try:
        return importlib.import_module("torch_npu").npu
    # The import loads the vendor's libraries and can raise any exception.
    except Exception as error:
        raise _unusable(f"torch_npu cannot be imported: {type(error).__name__}: {error}") from error


def _torch_stream(device_id: int) -> int:
    """Returns the address of torch_npu's current stream, so that operations keep their order with torch's."""
    npu = _npu()
    try:
        npu.set_device(device_id)
        return int(npu.current_stream().npu_stream)
    except (RuntimeError, ValueError) as error:
        raise _unusable(f"torch_npu cannot use device {device_id}: {error}") from error


def _unusable(why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"backend 'atb' (Ascend) cannot be used here: {why}", hint=f"Run {command('doctor')}."
    )
