# SPDX-License-Identifier: Apache-2.0
"""This machine's processor as a device: limits that are measured here, once, and kept."""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_cli.output import write_whole, writing
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.host_memory import available_memory
from atb_core.errors import RequestError
from atb_core.files import read_json, user_folder
from atb_core.graph import DataType, Network, Tensor
from atb_core.names import DTYPES
from atb_core.nn.functional import linear, neg, softmax
from atb_profile.estimate.devices import Device, Figure
from atb_profile.limits import ROWS, SHAPES, Clock, product_rate, read_bandwidth

if TYPE_CHECKING:
    import torch

#: What the engine is called beside the names of chips.
CPU = "cpu"
# Rows and columns of the softmax: scores that caches hold.
_SCORES = (256, 1024)
_OF_A_SCORE = 5
# Nodes of the chain by which the time between nodes is measured.
_CHAIN = 200
_LEAST = {"bandwidth": 1e6, "products": 1e6, "vector": 1e3, "launch": 0.0}


def limits_path() -> Path:
    """Returns the file in the user's cache folder where limits are kept."""
    return user_folder(os.environ, "XDG_CACHE_HOME", ".cache") / "limits.json"


def kept_processor(threads: int, dtype: str, path: Path) -> Device:
    """Returns this machine with the limits that the file has; measures and keeps them if it has none.

    Raises:
        RequestError: the file is no such file.
        AtbError: it cannot be written.
    """
    key = _key(threads, dtype)
    found = read_json(path, RequestError) or {}
    if key in found:
        return _device(_checked(found[key], path, key))
    device = measured_processor(threads, dtype)
    keep(device, threads, dtype, path)
    return device


def keep(device: Device, threads: int, dtype: str, path: Path) -> None:
    """Writes limits into the file, beside those of other threads, types and machines."""
    found = read_json(path, RequestError) or {}
    found[_key(threads, dtype)] = {name: device.figures()[name]._asdict() for name in _LEAST}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(found, indent=1))


def measured_processor(threads: int, dtype: str, clock: Clock = time.perf_counter) -> Device:
    """Measures this machine for some seconds.

    Args:
        threads: number of the engine's threads.
        dtype: the model's type, torch's name.
        clock: what is read before and after.
    """
    found = {
        "bandwidth": Figure(read_bandwidth(threads, clock=clock), "read stream, the engine's threads"),
        "products": _products(threads, dtype, clock),
        "vector": Figure(_vector_rate(threads, dtype, clock), f"softmax of {dtype} in caches, the engine's"),
        "launch": Figure(_launch_seconds(threads, clock), f"a chain of {_CHAIN} nodes that all threads meet at"),
    }
    # Other programs make limits lower, and what is kept should tell.
    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    when = f"measured here on {date.today()} with {threads} thread" + ("s" if threads > 1 else "") + busy
    return _device({name: Figure(value, f"{when}: {source}") for name, (value, source) in found.items()})


def _device(figures: dict[str, Figure]) -> Device:
    memory = Figure(float(available_memory() or 0), "memory of this machine that is free now")
    return Device(CPU, memory, link=None, dtypes=DTYPES, backend=CPU, integers=("int8", "int4"), **figures)


def _key(threads: int, dtype: str) -> str:
    name = platform.processor()
    with suppress(OSError):
        name = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("model name")[2].split("\n")[0].strip("\t :")
    return f"{name or platform.machine()}, {CpuBackend(num_threads=threads).isa}, {threads} threads, {dtype}"


def _checked(entry: Any, path: Path, key: str) -> dict[str, Figure]:
    try:
        figures = {name: Figure(float(entry[name]["value"]), str(entry[name]["source"])) for name in _LEAST}
    except (KeyError, TypeError, ValueError):
        figures = {}
    if not figures or any(not _LEAST[name] <= figure.value < 1e18 for name, figure in figures.items()):
        raise RequestError(
            f"{path}: the entry {key!r} has no usable {', '.join(_LEAST)}, each with value and source",
            hint="Remove the file; the limits are measured again.",
        )
    return figures


def _products(threads: int, dtype: str, clock: Clock) -> Figure:
    if rate := product_rate(threads, dtype, clock=clock):
        return Figure(rate, f"oneDNN's packed products, {dtype}, {ROWS} rows")
    seconds = 0.0
    for columns, inner in SHAPES:
        weight = {"w": _noise((columns, inner), dtype)}
        run = _forward(lambda x, w: linear(x, w), (ROWS, inner), dtype, threads, weight)
        seconds += _median(run, clock, 5)
    operations = sum(2 * ROWS * columns * inner for columns, inner in SHAPES)
    return Figure(operations / seconds, f"the engine's products, {dtype}, {ROWS} rows; torch has no packed ones")


def _vector_rate(threads: int, dtype: str, clock: Clock) -> float:
    run = _forward(lambda x: softmax(x, -1), _SCORES, dtype, threads)
    return _OF_A_SCORE * prod(_SCORES) / _median(run, clock, 50)


def _launch_seconds(threads: int, clock: Clock) -> float:
    def chain(count: int) -> Callable[[], Any]:
        def nodes(x: Tensor) -> Tensor:
            for _ in range(count):
                x = neg(x)
            return x

        return _forward(nodes, (1, 64), "float32", threads, small_work=0)

    one, many = (_median(chain(count), clock, 50) for count in (1, _CHAIN + 1))
    return max(0.0, many - one) / _CHAIN


def _forward(
    record: Callable[..., Tensor], shape: Sequence[int], dtype: str, threads: int, weights: Any = None, **options: Any
) -> Callable[[], Any]:
    """Returns a function that runs what `record` records, on random numbers."""
    with Network("limit") as network:
        element = DataType.from_short(dtype)
        tensors = [Tensor(name, tuple(value.shape), element) for name, value in (weights or {}).items()]
        network.mark_output(record(Tensor("x", tuple(shape), element), *tensors), "y")
    network.weights_keys |= set(weights or {})
    engine = network.build_engine(["All"], num_threads=threads, **options)
    if weights:
        engine.set_weights(weights)
    inputs = {"x": _noise(shape, dtype)}
    return lambda: engine.forward(inputs)


def _noise(shape: Sequence[int], dtype: str) -> torch.Tensor:
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))


def _median(run: Callable[[], Any], clock: Clock, repeats: int) -> float:
    """Returns the seconds of a call after the first one; of a coarse clock, the mean."""
    run()
    moments = [clock()]
    for _ in range(repeats):
        run()
        moments.append(clock())
    if clock is not time.perf_counter:
        return (moments[-1] - moments[0]) / repeats
    return statistics.median(after - before for before, after in itertools.pairwise(moments))
