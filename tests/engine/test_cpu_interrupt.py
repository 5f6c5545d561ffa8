# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends a long run between two nodes, and the engine can be used afterwards."""

from __future__ import annotations

from interrupts import interrupted

# The run takes a second or more and is interrupted early in it; a slower machine only makes the run longer.
SCRIPT = """
import torch
from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor

with Network("long") as net:
    x = Tensor("x", (Dim("n"),), DataType.FLOAT)
    y = x
    for _ in range(3000):
        y = y * 1.0
    net.mark_output(y, "y")
engine = CpuBackend(num_threads=2).build(net)
x, out = torch.ones(1 << 24), torch.full((1 << 24,), -1.0)
try:
    interrupt_soon()
    engine.forward({"x": x}, {"y": out})
    print("finished")
except KeyboardInterrupt:
    print("interrupted" if bool((out == -1).all()) else "interrupted after the end")
print(engine.forward({"x": torch.ones(3)})["y"].tolist())
"""


def test_an_interrupt_ends_the_run_and_not_the_engine() -> None:
    assert interrupted(SCRIPT) == ["interrupted", "[1.0, 1.0, 1.0]"]
