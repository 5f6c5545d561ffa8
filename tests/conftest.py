# SPDX-License-Identifier: Apache-2.0
"""Gives every test what it may rely on: few threads, no hub, a fixed seed; and the order of the tests."""

from __future__ import annotations

import gc
import os
import signal
import sys

import pytest

# Test machines are small, and workers of pytest-xdist share them. More threads would slow torch down on tiny models;
# the engine gets two, so that its threads meet in every test. transformers must never reach for a hub.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ATB_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A job in the background of a shell ignores interrupts, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves tests with a time limit of their own to the front: started last, they would keep one worker busy alone."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_collection_finish() -> None:
    """Takes what was imported out of collections of garbage: each runner that closes makes one."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Lets modules be collected at the end, when those of the engine look for what was left."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Seeds torch, where something has imported it, so that a failure can be repeated."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
