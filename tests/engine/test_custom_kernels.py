# SPDX-License-Identifier: Apache-2.0
"""Kernels that a plugin brings: compiled C, an address, Python. They run like the engine's own, or say why not."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import atb_core
from atb_core import _cpu
from atb_core.engine import kernel_abi
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.kernel_abi import KernelCall, KernelFunction
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.errors import EngineError, PluginError
from atb_core.graph import DataType, Dim, Network, Op, Tensor, record
from atb_core.graph.dim import Shape
from atb_core.graph.dtype import AttributeEnum
from atb_core.graph.op import _registry

SOURCE = Path(__file__).with_name("custom_kernels.c")


def compiler(names: tuple[str, ...], variable: str) -> str:
    found = os.environ.get(variable) or next((name for name in names if shutil.which(name)), None)
    if found is None:
        pytest.skip(f"there is no {variable} compiler")
    return found


@pytest.fixture(scope="module", autouse=True)
def _only_for_these_tests() -> Iterator[None]:
    """Tests that walk all ops find the core's again."""
    before = dict(_registry)
    yield
    _registry.clear()
    _registry.update(before)


@pytest.fixture(scope="session")  # a process registers the kernel of an op once, from one file
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C file as a shared library, by a strict compiler of plain C."""
    target = tmp_path_factory.mktemp("kernels") / "libkernels.so"
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "-fPIC", "-fvisibility=hidden"]
    command = [compiler(("cc", "gcc", "clang"), "CC"), *strict, f"-I{atb_core.get_include()}", "-shared", str(SOURCE)]
    subprocess.run([*command, "-o", str(target), "-lm"], check=True)
    return target


def same_shape(self: Op, *shapes: Shape) -> tuple[Shape, ...]:
    return (shapes[0],)


@dataclass(frozen=True)
class SineScale(Op, namespace="test_kernels"):
    """sin(x) * factor."""

    factor: float = 1.0
    infer_shapes = same_shape

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return ((inputs[0].float().sin() * self.factor).to(inputs[0].dtype),)


@dataclass(frozen=True)
class AddInto(Op, namespace="test_kernels"):
    """Adds value to target in place."""

    input_names = ("value", "target")
    writes = (1,)
    num_outputs = 0

    def infer_shapes(self, *shapes: Shape) -> tuple[Shape, ...]:
        return ()

    def reference(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs[1].add_(inputs[0])
        return ()


@pytest.fixture(scope="session")
def sine_scale(library: Path) -> type[SineScale]:
    register_cpu_kernel(SineScale, CpuKernel(library=library, symbol="scale"))
    return SineScale


def engine_of(op: Op, backend: str = "cpu", dtype: DataType = DataType.FLOAT, **options: Any) -> Any:
    """x [n, 4] -> op -> y."""
    with Network("one op") as net:
        net.mark_output(record(op, [Tensor("x", (Dim("n"), 4), dtype)])[0], "y")
    return net.build_engine(backend=backend, **options)


def new_op(name: str, **members: Any) -> type[Op]:
    """An op without attributes whose output has its input's shape."""
    made = type(name, (Op,), {"infer_shapes": same_shape, **members}, namespace="test_kernels")
    return dataclass(frozen=True)(made)


def doubled(call: KernelCall) -> None:
    x, y = call.inputs[0].array(), call.outputs[0].array()
    part = call.share(len(x))
    y[part] = 2 * x[part]


def test_a_kernel_in_c_agrees_with_the_reference(sine_scale: type[SineScale]) -> None:
    x = torch.randn(1000, 4)
    expected, actual = (engine_of(sine_scale(0.7), backend).forward({"x": x})["y"] for backend in ("reference", "cpu"))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert "cpu" in sine_scale.backends


@pytest.mark.parametrize("rows", [0, 1, 5, 1000])
def test_the_number_of_threads_changes_no_bit(sine_scale: type[SineScale], rows: int) -> None:
    x = torch.randn(rows, 4)
    results = []
    for threads in (1, 2, 3):
        backend = CpuBackend(num_threads=threads, small_work=0)
        with Network("one op") as net:
            net.mark_output(record(sine_scale(1.3), [Tensor("x", (Dim("n"), 4), DataType.FLOAT)])[0], "y")
        results.append(backend.build(net).forward({"x": x})["y"])
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("shapes", [True, False], ids=["declared", "undeclared"])
def test_it_runs_inside_a_network_among_ops_of_the_core(sine_scale: type[SineScale], shapes: bool) -> None:
    from atb_core.nn.functional import linear

    def tensor(name: str, shape: tuple[int | Dim, ...]) -> Tensor:
        return Tensor(name, shape, DataType.FLOAT) if shapes else Tensor(name)

    with Network("mlp") as net:
        x = tensor("x", (Dim("tokens"), 6))
        hidden = record(sine_scale(0.5), [linear(x, tensor("up", (8, 6)))])[0]
        net.mark_output(linear(hidden + hidden, tensor("down", (6, 8))) + x, "y")
    net.weights_keys |= {"up", "down"}
    weights = {"up": torch.randn(8, 6), "down": torch.randn(6, 8)}
    results = []
    for backend in ("reference", "cpu"):
        engine = net.build_engine(backend=backend)
        engine.set_weights(weights)
        results.append([engine.forward({"x": torch.ones(tokens, 6)})["y"] for tokens in (1, 3, 50)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_an_op_that_writes_in_place_keeps_its_order(library: Path) -> None:
    register_cpu_kernel(AddInto, CpuKernel(library=library, symbol="add_into"))
    results = []
    for backend in ("reference", "cpu"):
        with Network("in place") as net:
            value, target = (Tensor(name, (Dim("n"),), DataType.FLOAT) for name in ("value", "target"))
            before = target * 10.0
            record(AddInto(), [value, target])
            net.mark_output(before + target * 10.0, "y")
        memory = torch.tensor([5.0, 6.0])
        y = net.build_engine(backend=backend).forward({"value": torch.tensor([1.0, 2.0]), "target": memory})["y"]
        results.append((y.tolist(), memory.tolist()))
    assert results == [([110.0, 140.0], [6.0, 8.0])] * 2


def test_an_error_of_the_check_names_op_place_and_sizes(sine_scale: type[SineScale]) -> None:
    engine = engine_of(sine_scale(1.0), dtype=DataType.BF16)
    with pytest.raises(EngineError, match=r"SineScale at .*test_custom_kernels.*\(n = 2\): x must be float32"):
        engine.forward({"x": torch.ones(2, 4, dtype=torch.bfloat16)})


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_the_run_names_op_and_place_and_the_engine_goes_on(
    sine_scale: type[SineScale], threads: int
) -> None:
    engine = engine_of(sine_scale(1.0), num_threads=threads)
    x = torch.randn(2000, 4)
    expected = engine.forward({"x": x})["y"]
    bad = x.clone()
    bad[1999, 3] = float("inf")
    with pytest.raises(EngineError, match=r"SineScale at .*: no sine of infinity at 7999"):
        engine.forward({"x": bad})
    assert torch.equal(engine.forward({"x": x})["y"], expected)


def test_a_kernel_in_python_runs_on_the_threads_of_the_engine() -> None:
    parts: set[tuple[int, int]] = set()

    def run(call: KernelCall) -> None:
        parts.add((call.part, call.parts))
        doubled(call)

    op = new_op("TwiceInPython")
    register_cpu_kernel(op, CpuKernel.from_python(run))
    x = torch.randn(5000, 4)
    assert torch.equal(engine_of(op(), num_threads=3).forward({"x": x})["y"], 2 * x)
    assert parts == {(0, 3), (1, 3), (2, 3)}


def test_a_kernel_may_be_given_by_the_addresses_of_its_functions() -> None:
    @KernelFunction
    def check(call: Any) -> int:
        given: KernelCall = call.contents
        return 0 if given.inputs[0].shape[0] < 10 else given.fail("at most 9 rows")

    @KernelFunction
    def run(call: Any) -> int:
        doubled(call.contents)
        return 0

    op = new_op("TwiceByAddress")
    addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in (run, check)]
    register_cpu_kernel(op, CpuKernel.from_address(*addresses, abi_version=_cpu.KERNEL_ABI_VERSION))
    engine = engine_of(op())
    assert torch.equal(engine.forward({"x": torch.ones(9, 4)})["y"], torch.full((9, 4), 2.0))
    with pytest.raises(EngineError, match=r"TwiceByAddress at .* \(n = 10\): at most 9 rows"):
        engine.forward({"x": torch.ones(10, 4)})
    # They must stay as long as the engine may call them.
    _KEPT.extend((check, run))


_KEPT: list[Any] = []


class Flavour(AttributeEnum):
    SWEET = "FLAVOUR_SWEET"


def test_a_kernel_sees_the_attributes_and_types_of_its_op() -> None:
    seen: list[Any] = []

    def check(call: KernelCall) -> None:
        x, y = call.inputs[0], call.outputs[0]
        seen.append((call.op, call.attributes, x.shape, x.dtype, y.shape, y.dtype))
        with pytest.raises(ValueError, match="no data in check"):
            x.array()

    def run(call: KernelCall) -> None:
        call.outputs[0].array()[call.share(len(call.inputs[0].array()))] = 0

    @dataclass(frozen=True)
    class Attributed(Op, namespace="test_kernels"):
        flag: bool = True
        count: int = -3
        ratio: float = 0.25
        name_of: str = "café"
        axes: tuple[int, ...] = (1, 2)
        flavour: Flavour = Flavour.SWEET
        absent: int | None = None
        infer_shapes = same_shape

    register_cpu_kernel(Attributed, CpuKernel.from_python(run, check))
    y = engine_of(Attributed(), dtype=DataType.BF16).forward({"x": torch.ones(3, 4).bfloat16()})["y"]
    assert torch.equal(y, torch.zeros(3, 4).bfloat16())
    attributes = {
        "flag": True,
        "count": -3,
        "ratio": 0.25,
        "name_of": "café",
        "axes": [1, 2],
        "flavour": "FLAVOUR_SWEET",
    }
    assert seen == [("test_kernels.Attributed", attributes, (3, 4), DataType.BF16, (3, 4), DataType.BF16)]


def test_an_attribute_that_no_kernel_can_take_is_named() -> None:
    @dataclass(frozen=True)
    class Ragged(Op, namespace="test_kernels"):
        ratios: tuple[float, ...] = (0.5, 1.5)
        infer_shapes = same_shape

    register_cpu_kernel(Ragged, CpuKernel.from_python(doubled))
    with pytest.raises(EngineError, match=r"Ragged at .*attribute 'ratios' is neither"):
        engine_of(Ragged())


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.int8, torch.int32, torch.int64, torch.bool],
    ids=str,
)
def test_arrays_of_a_python_kernel_have_the_tensors_type(dtype: torch.dtype) -> None:
    def copy(call: KernelCall) -> None:
        x, y = call.inputs[0].array(), call.outputs[0].array()
        part = call.share(len(x))
        y[part] = x[part]

    op = new_op(f"Copied{str(dtype).rpartition('.')[2]}")
    register_cpu_kernel(op, CpuKernel.from_python(copy))
    x = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]]).to(dtype)
    declared = {
        torch.float32: DataType.FLOAT,
        torch.float16: DataType.FLOAT16,
        torch.int8: DataType.INT8,
        torch.int32: DataType.INT32,
        torch.int64: DataType.INT64,
        torch.bool: DataType.BOOL,
    }[dtype]
    assert torch.equal(engine_of(op(), dtype=declared).forward({"x": x})["y"], x)


def test_an_exception_in_python_is_an_error_of_the_engine() -> None:
    def run(call: KernelCall) -> None:
        raise IndexError(f"no expert called {'é' * 600}")

    op = new_op("Raising")
    register_cpu_kernel(op, CpuKernel.from_python(run))
    with pytest.raises(EngineError, match=r"Raising at .*: IndexError: no expert called ééé"):
        engine_of(op(), num_threads=3).forward({"x": torch.ones(5000, 4)})


SHARED_ENGINE = """
import threading
from dataclasses import dataclass
import torch
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.graph import DataType, Network, Op, Tensor, record

started, go_on = threading.Event(), threading.Event()

@dataclass(frozen=True)
class Patient(Op, namespace="test_kernels"):
    def infer_shapes(self, *shapes):
        return (shapes[0],)

def run(call):
    started.set()
    go_on.wait(30)
    call.outputs[0].array()[:] = 2

register_cpu_kernel(Patient, CpuKernel.from_python(run))
with Network("patient") as net:
    net.mark_output(record(Patient(), [Tensor("x", (2,), DataType.FLOAT)])[0], "y")
engine = net.build_engine(num_threads=1)
results = []
threads = [threading.Thread(target=lambda: results.append(engine.forward({"x": torch.ones(2)})["y"])) for _ in range(2)]
threads[0].start()
assert started.wait(30)
threads[1].start()
threading.Timer(0.2, go_on.set).start()
for thread in threads:
    thread.join()
print([result.tolist() for result in results])
"""


def test_two_threads_that_share_an_engine_do_not_wait_for_each_other_for_ever() -> None:
    """A kernel in Python needs the GIL that a thread waiting for the same engine must not hold."""
    # In a process of its own: with the GIL held for ever, no timeout of this one would end it.
    command = [sys.executable, "-c", SHARED_ENGINE]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[[2.0, 2.0], [2.0, 2.0]]\n"


def test_an_op_without_a_kernel_is_named_with_the_next_step() -> None:
    op = new_op("Bare")
    with Network("bare") as net:
        net.mark_output(record(op(), [Tensor("x", (4,), DataType.FLOAT)])[0], "y")
    with pytest.raises(EngineError, match=r"Bare at .*no kernel for this op.*custom-kernels.*backend=\"reference\""):
        CpuBackend(num_threads=1).build(net)


def test_the_same_kernel_may_be_registered_again_and_no_other(sine_scale: type[SineScale], library: Path) -> None:
    register_cpu_kernel(sine_scale, CpuKernel(library=library, symbol="scale"))
    with pytest.raises(PluginError, match=r"there is an op test_kernels\.SineScale already.*one kernel"):
        register_cpu_kernel(sine_scale, CpuKernel(library=library, symbol="add_into"))


def test_an_op_of_the_core_keeps_its_kernel(library: Path) -> None:
    from atb_core.graph.ops import Linear

    with pytest.raises(PluginError, match="the engine has an op Linear of its own"):
        register_cpu_kernel(Linear, CpuKernel(library=library, symbol="scale"))


def test_ops_that_may_have_no_kernel_are_refused(library: Path) -> None:
    kernel = CpuKernel(library=library, symbol="scale")
    with pytest.raises(PluginError, match=r"op test_kernels\.Viewing is a view"):
        register_cpu_kernel(new_op("Viewing", is_view=True), kernel)
    first, _ = new_op("DeclaredTwice"), new_op("DeclaredTwice")
    with pytest.raises(PluginError, match=r"test_kernels\.DeclaredTwice is no op, or another op of this name"):
        register_cpu_kernel(first, kernel)


def test_what_is_wrong_with_a_library_is_named(library: Path, tmp_path: Path) -> None:
    op = new_op("Homeless")
    with pytest.raises(PluginError, match=rf"there is no kernel library {tmp_path}/gone\.so.*reinstall"):
        register_cpu_kernel(op, CpuKernel(library=tmp_path / "gone.so", symbol="scale"))
    (tmp_path / "text.so").write_text("not a library")
    with pytest.raises(PluginError, match=r"text\.so cannot be loaded: .*Build it for this platform"):
        register_cpu_kernel(op, CpuKernel(library=tmp_path / "text.so", symbol="scale"))
    with pytest.raises(PluginError, match=r"libkernels\.so has no symbol 'scole'.*ATB_KERNEL"):
        register_cpu_kernel(op, CpuKernel(library=library, symbol="scole"))
    with pytest.raises(PluginError, match=r"'number' of .*libkernels\.so is no kernel"):
        register_cpu_kernel(op, CpuKernel(library=library, symbol="number"))
    for nothing in ({}, {"library": library}, {"symbol": "scale"}):
        with pytest.raises(PluginError, match="needs the file of a library and a symbol"):
            CpuKernel(**nothing)
    assert "test_kernels.Homeless" not in _cpu.op_names()


def test_kernels_for_another_version_of_the_abi_are_refused_by_name(library: Path) -> None:
    op = new_op("Newer")
    versions = rf"version {_cpu.KERNEL_ABI_VERSION + 1} of the kernel ABI; this atb_core has version"
    with pytest.raises(PluginError, match=rf"kernel 'newer' of .*libkernels\.so is written for {versions}.*get_inc"):
        register_cpu_kernel(op, CpuKernel(library=library, symbol="newer"))
    with pytest.raises(PluginError, match=f"the kernel of op test_kernels.Newer is written for {versions}"):
        register_cpu_kernel(op, CpuKernel.from_address(1, abi_version=_cpu.KERNEL_ABI_VERSION + 1))
    assert "test_kernels.Newer" not in _cpu.op_names()


@pytest.mark.parametrize(
    ("structure", "symbol"),
    [
        (kernel_abi.KernelTensor, "tensor_layout"),
        (kernel_abi.KernelAttribute, "attribute_layout"),
        (kernel_abi.KernelCall, "call_layout"),
        (kernel_abi.Kernel, "kernel_layout"),
    ],
)
def test_ctypes_and_the_header_have_one_layout(library: Path, structure: type[ctypes.Structure], symbol: str) -> None:
    offsets = [getattr(structure, name).offset for name, _ in structure._fields_]
    expected = [*offsets, ctypes.sizeof(structure), -1]
    found = (ctypes.c_int32 * len(expected)).in_dll(ctypes.CDLL(str(library)), symbol)
    assert list(found) == expected


def test_the_header_is_good_cxx_too(library: Path, tmp_path: Path) -> None:
    source = tmp_path / "kernel.cpp"
    source.write_text(
        "#include <atb_core/kernel_abi.h>\n"
        "static int32_t run(atb_call* call) { return atb_fail(call, \"%s in C++\", call->op); }\n"
        "ATB_KERNEL(kernel, nullptr, run);\n"
    )  # fmt: skip
    target = tmp_path / "libcxx.so"
    command = [compiler(("c++", "g++", "clang++"), "CXX"), "-std=c++11", "-Wall", "-Wextra", "-Werror", "-fPIC"]
    command += [f"-I{atb_core.get_include()}", "-shared", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    op = new_op("InCxx")
    register_cpu_kernel(op, CpuKernel(library=target, symbol="kernel"))
    with pytest.raises(EngineError, match=r"InCxx at .*: test_kernels.InCxx in C\+\+"):
        engine_of(op()).forward({"x": torch.ones(1, 4)})


def test_kernels_are_described_without_torch() -> None:
    """Plugins name their kernels when they are imported, which has to be quick."""
    program = (
        "import sys; from atb_core.engine.kernels import CpuKernel, get_include; get_include();"
        "CpuKernel(library='x.so', symbol='y'); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"False\n"


def test_parts_cover_everything_once() -> None:
    for n in (0, 1, 7, 1000):
        for parts in (1, 2, 3, 8):
            units = np.concatenate([np.arange(n)[KernelCall(part=p, parts=parts).share(n)] for p in range(parts)])
            assert units.tolist() == list(range(n))
