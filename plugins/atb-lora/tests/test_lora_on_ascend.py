# SPDX-License-Identifier: Apache-2.0
"""Adapters on the Ascend backend: one in a step, by products of its own."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import EngineError

sys.path.insert(0, str(Path(__file__).parent))
from lora_adapters import ADAPTERS, greedy, write_adapter, write_base


def test_requests_with_different_adapters_take_turns(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    models = {name: write_adapter(base, tmp_path / name, **settings) for name, settings in ADAPTERS.items()}
    rng = random.Random(1)
    names = [*ADAPTERS, None, "qv"]
    prompts = [[rng.randrange(199) for _ in range(rng.randrange(3, 20))] for _ in names]
    paths = {name: tmp_path / name for name in ADAPTERS}
    with ModelRunner(base, backend="atb-sim", dtype="float16", load_tokenizer=False, lora_modules=paths) as runner:
        outputs = runner.generate(prompts, SamplingParams(max_tokens=4, ignore_eos=True), adapter_ids=names)
        for name, prompt, output in zip(names, prompts, outputs, strict=True):
            if name is not None:
                assert output.outputs[0].token_ids == greedy(models[name], prompt, 4), name
        assert all("multi_lora" not in key for key in runner.model.variants.variants)
        with pytest.raises(EngineError, match="'atb' has no grouped products"):
            runner.forward(
                torch.tensor([1, 2]), torch.tensor([0, 0]), True, runner.kv_cache, None,
                torch.tensor([0, 128], dtype=torch.int32), torch.tensor([1, 1], dtype=torch.int32), 1,
                adapter_ids=["qv", None],
            )  # fmt: skip
