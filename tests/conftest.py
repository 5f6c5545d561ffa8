# SPDX-License-Identifier: Apache-2.0
"""What every test may rely on: few threads, no hub, a fixed seed."""

from __future__ import annotations

import os
import sys

import pytest

# Test machines are small and shared; and transformers must never reach for a hub from inside a test.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("ATB_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Seeds torch, where something has imported it, so that a failure can be repeated."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
