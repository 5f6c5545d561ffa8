# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends a long run between two nodes, and the engine can be used afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

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
out = torch.full((1 << 21,), -1.0)
try:
    print("started", flush=True)
    engine.forward({"x": torch.ones(1 << 21)}, {"y": out})
    print("finished")
except KeyboardInterrupt:
    print("interrupted" if bool((out == -1).all()) else "interrupted after the end")
print(engine.forward({"x": torch.ones(3)})["y"].tolist())
"""


def test_an_interrupt_ends_the_run_and_not_the_engine() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        time.sleep(0.2)  # into the run; one that ends sooner prints "finished" and fails the test
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=200)
    assert output.splitlines() == ["interrupted", "[1.0, 1.0, 1.0]"]
