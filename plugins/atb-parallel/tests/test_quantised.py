# SPDX-License-Identifier: Apache-2.0
"""Quantised checkpoints are divided as they are stored, or as the values that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import quant_files as files

from atb_core import ModelRunner, SamplingParams
from atb_testing import tiny_checkpoint

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8]]
CASES: dict[str, tuple[files.Packer, dict[str, Any] | None, dict[str, Any] | None]] = {
    "gptq": (files.gptq(), {"quant_method": "gptq", "bits": 4, "group_size": 32}, None),
    "awq": (files.awq(), {"quant_method": "awq", "bits": 4, "group_size": 32}, None),
    "fp8": (files.fp8_blocks, {"quant_method": "fp8", "weight_block_size": [16, 32]}, None),
    "W8A8": (files.slim_static, None, {"model_quant_type": "W8A8", "version": "1.0.0"}),
}


def tokens(path: Path, size: int, **options: Any) -> list[list[int]]:
    """Returns the tokens that `size` processes give."""
    given = {"load_tokenizer": False, "num_threads": 1, "max_model_len": 64, "backend": "cpu", **options}
    with ModelRunner(path, tensor_parallel_size=size, **given) as runner:
        params = SamplingParams(max_tokens=6, ignore_eos=True)
        return [list(output.outputs[0].token_ids) for output in runner.generate(PROMPTS, params)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_the_tokens_of_one(case: str, tmp_path: Path) -> None:
    pack, config, description = CASES[case]
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    source = tiny_checkpoint(tmp_path / "source", "llama", **sizes)
    quantised, plain = files.quantise_directory(source, tmp_path / case, pack, config, description)
    assert tokens(quantised, 2, dtype="float32") == tokens(plain, 1)


@pytest.mark.parametrize(("width", "expands"), [(128, False), (96, True)])
def test_blocks_are_divided_between_blocks_and_else_expanded(
    width: int, expands: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each process has the numbers of the file: blocks of 32 inputs, of which 96 have one and a half for each."""
    pack, config, _ = CASES["gptq"]
    sizes = {"hidden_size": 64, "intermediate_size": width, "num_hidden_layers": 1, "head_dim": 16}
    source = tiny_checkpoint(tmp_path / "source", "llama", **sizes)
    quantised, _ = files.quantise_directory(source, tmp_path / "gptq", pack, config)
    assert tokens(quantised, 2) == tokens(quantised, 1)
    assert ("are divided inside of blocks of Q4_0" in caplog.text) == expands
