# SPDX-License-Identifier: Apache-2.0
"""Every op gives the same bits for every number of threads and on every instruction set level."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from engine.networks import sample_engine, tiny_engine
from ops.cases import OPS

from atb_core._cpu import supported_isas
from atb_core.engine.cpu import CpuBackend
from atb_testing.one_op import inputs_for
from atb_testing.op_samples import Sample, samples_of

CASES = [
    pytest.param(sample, id=f"{name}: {sample.label}")
    for name, op in OPS.items()
    if "cpu" in op.backends
    for sample in samples_of(op)
]
CONFIGURATIONS = [("portable", 1), ("portable", 3), *((isa, 2) for isa in supported_isas())]


def results(sample: Sample, dtype: torch.dtype, isa: str, threads: int) -> list[torch.Tensor]:
    inputs = inputs_for(sample, dtype)
    engine = sample_engine(sample, inputs, CpuBackend(num_threads=threads, isa=isa, small_work=0))
    outputs = engine.forward({f"in{i}": value for i, value in enumerate(inputs)})
    return [*outputs.values(), *(inputs[i] for i in sample.op.writes)]


def bits(value: torch.Tensor) -> bytes:
    return value.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sample", CASES)
def test_one_set_of_bits(sample: Sample, dtype: torch.dtype) -> None:
    expected = [bits(value) for value in results(sample, dtype, *CONFIGURATIONS[0])]
    for isa, threads in CONFIGURATIONS[1:]:
        actual = [bits(value) for value in results(sample, dtype, isa, threads)]
        assert actual == expected, f"{isa} with {threads} threads differs from portable with one"


def test_several_python_threads_may_use_one_engine() -> None:
    engine = tiny_engine()
    ids = [torch.tensor([i % 20]) for i in range(8)]
    expected = [engine.forward({"ids": i})["logits"].clone() for i in ids]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not torch.equal(engine.forward({"ids": ids[index]})["logits"], expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=work, args=(index,)) for index in range(len(ids))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_can_go_on_with_the_engine() -> None:
    script = """
import os, sys, torch
sys.path.insert(0, sys.argv[1])
from engine.networks import tiny_engine
engine, ids = tiny_engine(num_threads=3), torch.tensor([1, 2])
expected = engine.forward({"ids": ids})["logits"].clone()
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(engine.forward({"ids": ids})["logits"], expected) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    subprocess.run([sys.executable, "-c", script, tests], check=True, timeout=120)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({"OMP_NUM_THREADS": "3"}, 3), ({"OMP_NUM_THREADS": "3", "ATB_NUM_THREADS": "1"}, 1)],
)
def test_the_environment_sets_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int
) -> None:
    monkeypatch.delenv("ATB_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert CpuBackend().num_threads == expected
    assert CpuBackend(num_threads=2).num_threads == 2
