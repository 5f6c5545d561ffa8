# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends a long run between two nodes, and the engine can be used afterwards."""

from __future__ import annotations

from interrupts import interrupted

NETWORK = """
import torch
from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor

with Network("long") as net:
    x = Tensor("x", (Dim("n"),), DataType.FLOAT)
    y = x
    for _ in range(NODES):
        y = y * 1.0
    net.mark_output(y, "y")
engine = CpuBackend(num_threads=2).build(net)
"""
# A run takes a second or more and is interrupted early in it; a slower machine only makes the run longer.
AT_ONCE = """
x, out = torch.ones(1 << 24), torch.full((1 << 24,), -1.0)
try:
    interrupt_soon()
    engine.forward({"x": x}, {"y": out})
    print("finished")
except KeyboardInterrupt:
    print("interrupted" if bool((out == -1).all()) else "interrupted after the end")
print(engine.forward({"x": torch.ones(3)})["y"].tolist())
"""


SLICED = """
run = engine.start({"x": torch.ones(1 << 24)})
try:
    interrupt_soon()
    print("finished" if run.advance(1000.0) else "paused")
except KeyboardInterrupt:
    print("interrupted")
print(bool((run.advance(1000.0)["y"] == 1).all()))
"""


def test_an_interrupted_slice_can_be_continued() -> None:
    assert interrupted("NODES = 300" + NETWORK + SLICED) == ["interrupted", "True"]


def test_an_interrupt_ends_the_run_and_not_the_engine() -> None:
    assert interrupted("NODES = 3000" + NETWORK + AT_ONCE) == ["interrupted", "[1.0, 1.0, 1.0]"]
