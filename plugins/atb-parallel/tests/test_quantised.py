# SPDX-License-Identifier: Apache-2.0
"""Quantised checkpoints are divided as they are stored, or as the values that they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quant_files as files
from safetensors.torch import save_file

from atb_core import ModelRunner, SamplingParams
from atb_core.checkpoint import open_checkpoint
from atb_core.graph import DataType
from atb_parallel.shards import Cut, PartLoader
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


@pytest.mark.parametrize("size", [32, 48, -1])
@pytest.mark.parametrize(("dim", "ends"), [(0, (12, 24)), (1, (0, 96)), (1, (96, 192))])
def test_integers_are_divided_with_the_scales_and_zeros_of_their_groups(
    dim: int, ends: tuple[int, int], size: int, tmp_path: Path
) -> None:
    """A group of 48 inputs is divided between groups, and one that is the whole row within it."""
    weight = np.random.default_rng(1).normal(size=(24, 192)).astype(np.float32)
    tensors, values = files.pack_quantized(size=size, symmetric=False)(weight)
    save_file({f"layer.{each}": files.as_tensor(array) for each, array in tensors.items()}, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    arguments = {"group_size": size, "symmetric": False}
    strategy = "channel" if size == -1 else "group"
    config = files.compressed_config(4, "int", strategy, "pack-quantized", **arguments)
    files.change_config(tmp_path, quantization_config=config)
    with open_checkpoint(tmp_path).weights(DataType.FLOAT) as loader:
        part = PartLoader(loader, {"layer.weight": Cut(weight.shape, dim, (ends,))}, ())
        rows = part.blocks("layer.weight", ("INTEGERS4",))
        assert rows is not None
        integers, others = rows.blocks[:, : rows.columns].view(np.int8), rows.blocks[:, rows.columns :]
        scales, zeros = np.split(np.ascontiguousarray(others).view(np.float32), 2, axis=1)
        in_groups = integers.reshape(len(integers), scales.shape[1], -1) - zeros[..., None]
        found = (in_groups * scales[..., None]).reshape(integers.shape)
        np.testing.assert_array_equal(found, values.take(range(*ends), dim))
