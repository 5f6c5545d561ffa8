# SPDX-License-Identifier: Apache-2.0
"""A process forks while threads of it run the engine; parent and children go on with the same engines."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAD = """
import os, signal, threading
import torch
torch.set_num_threads(1)
from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor

def engine_of(backend, nodes):
    with Network("chain") as net:
        y = Tensor("x", (Dim("n"),), DataType.FLOAT)
        for _ in range(nodes):
            y = y * 0.5
        net.mark_output(y, "y")
    return backend.build(net)

def right(engine, n=1 << 15):
    return bool((engine.forward({"x": torch.full((n,), 4.0)})["y"] == 1).all())

def status_of(child):
    '''Forks; the child ends with what `child` returns, or with SIGALRM.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(child())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

UNDER_LOAD = """
backend = CpuBackend(num_threads=2, small_work=0)
engines = [engine_of(backend, 2) for _ in range(2)]
stop = False

def run(engine):
    while not stop:
        assert right(engine)

def child():
    torch.set_num_threads(1)  # renews torch's own pool, which several threads must not be the first to ask for
    results = []
    threads = [threading.Thread(target=lambda e=e: results.append(right(e))) for e in engines for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if results == [True] * 4 else 1

# torch prepares an operator when it is first called; a child that was forked meanwhile finds its lock held for ever.
assert all(right(engine) for engine in engines)
runners = [threading.Thread(target=run, args=(engine,)) for engine in engines]
for runner in runners:
    runner.start()
statuses = {status_of(child) for _ in range(25)}
stop = True
for runner in runners:
    runner.join()
print(statuses, right(engines[0]))
"""

SLEEPER = """
import time
from dataclasses import dataclass
from atb_core.engine.kernels import CpuKernel, register_cpu_kernel
from atb_core.graph import Op, record

@dataclass(frozen=True)
class Sleeper(Op, namespace="test_fork"):
    def infer_shapes(self, *shapes):
        return (shapes[0],)

    def reference(self, *inputs):
        return (inputs[0],)

def sleeper_engine(kernel):
    register_cpu_kernel(Sleeper, CpuKernel.from_python(kernel))
    with Network("sleeper") as net:
        net.mark_output(record(Sleeper(), (Tensor("x", (Dim("n"),), DataType.FLOAT),))[0], "y")
    return CpuBackend(num_threads=1).build(net)
"""

LONG_RUN = """
inside = threading.Event()

def sleep(call):
    inside.set()
    time.sleep(SECONDS)
    call.outputs[0].array()[:] = call.inputs[0].array()

long, short = sleeper_engine(sleep), engine_of(CpuBackend(num_threads=1), 2)
thread = threading.Thread(target=long.forward, args=({"x": torch.ones(3)},))
thread.start()
inside.wait()

def child():
    try:
        return 0 if right(short) else 1
    except Exception as error:
        return 7 if type(error).__name__ == "EngineError" and "forked while" in str(error) else 2

print(status_of(child))
thread.join()
print(right(short))
"""

FORK_IN_RUN = """
def fork(call):
    if call.part == 0:
        print(status_of(lambda: 5))
    call.outputs[0].array()[:] = call.inputs[0].array()

print(sleeper_engine(fork).forward({"x": torch.ones(3)})["y"].tolist())
"""


def lines(script: str) -> list[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-u", "-c", HEAD + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a thread may hold the lock of ASan's allocator")
def test_children_of_a_busy_process_run_its_engines_in_several_threads() -> None:
    assert lines(UNDER_LOAD) == ["{0} True"]


def test_a_fork_waits_for_the_end_of_a_run() -> None:
    assert lines(SLEEPER + LONG_RUN.replace("SECONDS", "0.5")) == ["0", "True"]


@pytest.mark.slow  # the patience is ten seconds
def test_a_child_that_was_forked_during_a_very_long_run_says_why_it_cannot_use_the_engine() -> None:
    assert lines(SLEEPER + LONG_RUN.replace("SECONDS", "14")) == ["7", "True"]


def test_a_kernel_may_fork() -> None:
    assert lines(SLEEPER + FORK_IN_RUN) == ["5", "[1.0, 1.0, 1.0]"]
