# SPDX-License-Identifier: Apache-2.0
"""W8A8 checkpoints on the simulated device: the CPU engine's tokens, by products of integers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from integer_files import CASES
from simulator.simulated import BACKENDS, assert_agree, greedy, open_runner, prompts

pytest.importorskip("transformers")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["W8A8", "W8A8_DYNAMIC", "compressed-tensors, static"])
def test_activations_of_8_bits_give_the_cpu_engines_tokens(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    directory, _ = CASES[name].write(tmp_path, dtype)
    runs = []
    for backend in BACKENDS:
        with open_runner(directory, backend) as runner:
            runs.append(runner.generate(prompts((5, 1, 40)), greedy(6)))
            ops = [node.op.name for node in runner.model.variants.get("decode").engine.network.nodes]
            # Queries, keys and values; their output; gate and up; down: of two layers.
            assert sum(op.startswith("QuantLinear") for op in ops) == 8
    assert_agree(runs[1], runs[0])
