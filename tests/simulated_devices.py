# SPDX-License-Identifier: Apache-2.0
"""Devices of the simulator for processes that share a model: `pytest.mark.usefixtures("two_devices")`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atb_ascend.backend import load_simulator


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives this process and those that it starts two devices."""
    monkeypatch.setenv("ATB_SIM_DEVICES", "2")
    sim = load_simulator().sim
    sim.set_devices(2)
    yield
    sim.set_devices(1)
