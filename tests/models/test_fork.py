# SPDX-License-Identifier: Apache-2.0
"""A model of the cpu engine runs in a forked child, which has none of the threads that torch had in its parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, threading
import numpy as np
import torch
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_testing import PagedDriver

class Windowed(SmallForCausalLM):
    def __init__(self, config, *args, **kwargs):
        config.hf_config.window_of = lambda layer: WINDOW
        super().__init__(config, *args, **kwargs)

def loaded(config):
    model = torch_to_mindie_graph()(Windowed)(small_config(max_position_embeddings=9000, **config), None, backend="cpu")
    model.load_weights(MemoryLoader(random_tensors(model)))
    driver = PagedDriver(model, 2, max_len=8500)
    for cache in (cache for pair in driver.kv_cache for cache in pair):
        cache.zero_()
    return driver

def steps_of(driver):
    '''A prefill, a decode step early in a context, one beyond the first tables, and one at the end.'''
    steps, run = [], driver.model.run_step
    driver.model.run_step = lambda step: steps.append(step) or torch.zeros(1)
    driver.prefill([[1, 2, 3], [4] * 200])
    driver.decode([5, 6])
    for length in (5000, 8400):
        driver.lengths = [length, 9]
        driver.decode([7, 8])
    driver.model.run_step = run
    return steps

def logits(driver, steps):
    return np.concatenate([driver.model.run_step(step).view(INTEGER).numpy() for step in steps])

def child():
    results, threads = [], [threading.Thread(target=lambda d=d, s=s: results.append(logits(d, s))) for d, s in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if len(results) == 2 and all((result == expected).all() for result in results) else 1

torch.set_num_threads(4)
ones = torch.ones(1 << 20)
assert ones.cos().sum() > 0 and (torch.ones(500, 500) @ torch.ones(500, 500)).sum() > 0
for config, WINDOW in CASES:
    (driver, steps), *others = [(driver, steps_of(driver)) for driver in [loaded(config) for _ in range(3)]]
    INTEGER = torch.int32 if driver.model.run_step(steps[0]).dtype is torch.float32 else torch.int16
    expected = logits(driver, steps)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(child())
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(expected), len(np.unique(expected)) > 100)
"""
#: A configuration, and the window of its layers.
CASES: list[tuple[dict[str, object], int | None]] = [
    ({}, None),
    ({"torch_dtype": "bfloat16"}, 100),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "rope_theta": 500.0, "head_dim": 64}, None),
]


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a thread may hold the lock of ASan's allocator")
def test_a_child_runs_steps_although_its_parent_used_the_threads_of_torch() -> None:
    script = SCRIPT.replace("CASES", repr(CASES))
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-u", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=folder)
    assert (done.stdout, done.returncode) == ("0 209 True\n" * len(CASES), 0), done.stderr
