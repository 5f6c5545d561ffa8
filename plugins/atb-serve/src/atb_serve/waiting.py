# SPDX-License-Identifier: Apache-2.0
"""Waits for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(seconds: float | None, work: Awaitable[T]) -> T:
    """Returns the result of `work`, which is cancelled after some seconds, or when this is.

    An error of `work` is freed as soon as nobody handles it, and with its traceback what the work had. That of
    `asyncio.wait_for` is in a cycle with the task, and stays in memory until the garbage collector comes.

    Raises:
        asyncio.TimeoutError: It took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        if not (await asyncio.wait({task}, timeout=seconds))[0]:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        del task, work
