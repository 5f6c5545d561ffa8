# SPDX-License-Identifier: Apache-2.0
"""From a prompt to a token nothing imports torch or transformers on the CPU engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atb_core import ModelRunner, SamplingParams
from atb_testing.checkpoints import tiny_checkpoint

PROGRAM = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Refused())
import atb_core

for path in sys.argv[2:]:
    with atb_core.ModelRunner(path, graph=sys.argv[1], load_tokenizer=False, max_num_seqs=4) as runner:
        prompts = [[1, 2, 3, 4], [5, 6]]
        params = atb_core.SamplingParams(max_tokens=6, ignore_eos=True)
        print([output.outputs[0].token_ids for output in runner.generate(prompts, params)])
"""


@pytest.mark.parametrize("graph", ["python", "cpp"])
def test_a_program_without_torch_generates_what_one_with_it_does(graph: str, tmp_path: Path) -> None:
    dtypes = (torch.bfloat16, torch.float16, torch.float32)
    paths = [tiny_checkpoint(tmp_path / str(dtype), "qwen2", dtype) for dtype in dtypes]
    command = [sys.executable, "-c", PROGRAM, graph, *map(str, paths)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    for path, line in zip(paths, child.stdout.splitlines(), strict=True):
        with ModelRunner(path, backend="cpu", graph=graph, load_tokenizer=False, max_num_seqs=4) as runner:
            params = SamplingParams(max_tokens=6, ignore_eos=True)
            outputs = runner.generate([[1, 2, 3, 4], [5, 6]], params)
        assert line == str([output.outputs[0].token_ids for output in outputs])


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_step_of_arrays_and_one_of_tensors_give_the_same_bits(backend: str, tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "model", "llama", torch.bfloat16)
    with ModelRunner(path, backend=backend, load_tokenizer=False, num_blocks=4) as runner:
        arrays = {
            "input_ids": np.array([1, 2, 3]),
            "position_ids": np.arange(3),
            "block_tables": np.zeros((1, 1), np.int32),
            "slots": np.arange(3, dtype=np.int32),
            "input_lengths": np.array([3], np.int32),
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        results = [
            runner.forward(**given, is_prefill=True, max_seq_len=3, kv_cache=runner.allocate_kv_cache(1))
            for given in (arrays, tensors)
        ]
        assert isinstance(results[0], np.ndarray)
        assert isinstance(results[1], torch.Tensor)
        assert np.array_equal(results[0], results[1].numpy())
