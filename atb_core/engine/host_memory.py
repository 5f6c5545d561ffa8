# SPDX-License-Identifier: Apache-2.0
"""Host memory: the available amount, and arrays whose pages are allocated on first use."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from atb_core.engine.checks import memory_size
from atb_core.errors import EngineError
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.graph.dtype import DataType


def host_zeros(shape: tuple[int, ...], dtype: DataType) -> HostArray:
    """Returns an array of zeros, aligned to a page, whose memory the system provides page by page on first write.

    Raises:
        EngineError: there is not enough memory, or the shape or dtype is impossible.
    """
    count = memory_size("a key/value cache", shape, dtype)
    try:
        # Pages of its own and ordinary ones. numpy asks for huge pages, which the system clears when they are first
        # written: where all sequences began a block in the same step, that step took ten times as long as others.
        raw = mmap.mmap(-1, max(count, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise EngineError(
            f"the key/value cache needs {count / 2**20:,.0f} MiB more for each layer, which the system refuses",
            hint="Lower num_blocks, kv_cache_memory_bytes, max_model_len or max_num_seqs.",
        ) from None
    return np.frombuffer(raw, np.uint8, count).view(numpy_dtype(dtype)).reshape(shape)


def available_memory() -> int | None:
    """Returns the bytes that this process can still use: the machine's, or its control group's if they are fewer."""
    amounts = []
    with suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        amounts.append(int(text.partition("MemAvailable:")[2].split()[0]) * 1024)
    if not amounts:
        with suppress(AttributeError, OSError, ValueError):
            amounts.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    # Without a limit, memory.max holds the word "max".
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        amounts.append(max(0, limit - used))
    return min(amounts, default=None)
