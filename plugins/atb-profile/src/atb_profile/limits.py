# SPDX-License-Identifier: Apache-2.0
"""Measures what this machine can do at most, to have it beside what was measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from atb_core.engine.cpu import CpuBackend
from atb_core.engine.host_memory import available_memory

if TYPE_CHECKING:
    import torch

#: A clock in seconds. That of the processor's time tells what one thread takes where other programs run too.
Clock: TypeAlias = Callable[[], float]
#: Bytes that a pass of the read stream reads, if there is memory for them: more than caches hold.
_STREAM = 1 << 30
#: Rows of the products: a prefill of this number of tokens.
ROWS = 512
#: Columns and inner size of the products, if a caller has none of its own: the MLP of a model of 0.5 B parameters.
SHAPES = ((9728, 896), (896, 4864))


class Limits(NamedTuple):
    """Measured limits of this machine, medians.

    Attributes:
        threads: number of threads.
        read: bytes a second that the threads read from memory, `_cpu.read_stream`.
        products: operations a second of oneDNN's products with packed weights; 0 if torch lacks them.
        dtype: element type of the products, torch's name.
    """

    threads: int
    read: float
    products: float
    dtype: str

    def __str__(self) -> str:
        products = f"oneDNN's packed products ({self.dtype}, {ROWS} rows) {self.products * 1e-9:.0f} GFLOP/s"
        return f"limits measured now, {self.threads} threads: read stream {self.read * 1e-9:.2f} GB/s; " + (
            products if self.products else f"torch has no packed products in {self.dtype}"
        )


def measure_limits(
    threads: int, dtype: str = "bfloat16", shapes: Sequence[tuple[int, int]] = SHAPES, repeats: int = 5
) -> Limits:
    """Measures the read stream and the packed products.

    Args:
        threads: number of threads.
        dtype: element type of the products, torch's name.
        shapes: columns and inner size of each product.
        repeats: passes of each, of which the median counts.
    """
    return Limits(threads, read_bandwidth(threads, repeats), product_rate(threads, dtype, shapes, repeats), dtype)


def read_bandwidth(threads: int, repeats: int = 5, clock: Clock = time.perf_counter) -> float:
    """Returns the bytes a second that `threads` threads read from memory."""
    backend = CpuBackend(num_threads=threads)
    size = min(_STREAM, (available_memory() or _STREAM) // 4)

    def passes(count: int) -> list[float]:
        return list(backend.extension.read_stream(backend.runtime, size, count))

    if clock is time.perf_counter:
        return size / statistics.median(passes(repeats))
    # Filling the memory takes this clock's time as well: once in both calls.
    moments = [clock(), *(clock() for count in (1, repeats + 1) if passes(count))]
    return size * repeats / (moments[2] - 2 * moments[1] + moments[0])


def product_rate(
    threads: int, dtype: str, shapes: Sequence[tuple[int, int]] = SHAPES, repeats: int = 5,
    clock: Clock = time.perf_counter,
) -> float:  # fmt: skip
    """Returns the operations a second of oneDNN's products with `ROWS` rows and packed weights, 0 if there are none."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        calls = [_product(getattr(torch, dtype), columns, inner) for columns, inner in shapes]
        seconds = []
        for _ in range(repeats + 1):
            start = clock()
            for x, weight in calls:
                torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
            seconds.append(clock() - start)
    except (AttributeError, RuntimeError):  # a torch without oneDNN, or a processor without the type
        return 0.0
    finally:
        torch.set_num_threads(before)
    return sum(2 * ROWS * columns * inner for columns, inner in shapes) / statistics.median(seconds[1:])


def _product(dtype: torch.dtype, columns: int, inner: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, inner, generator=generator).to(dtype) for n in (ROWS, columns))
    return x, torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
