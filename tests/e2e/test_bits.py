# SPDX-License-Identifier: Apache-2.0
"""One set of bits: a prompt's tokens and logits do not depend on its company, the threads, the cache or the kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from atb_core._cpu import supported_isas

# Runs in a process of its own, because the kernels are chosen once per process.
SCRIPT = """
import json, sys
from atb_core import ModelRunner, SamplingParams
directory, threads, block, batched = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "batched"
runner = ModelRunner(directory, load_tokenizer=False, num_threads=threads, block_size=block, max_model_len=512)
vocab = runner.config.vocab_size
prompts = [[(7 * i * i + 13 * i + n) % vocab for i in range(n)] for n in (1, 3, 200, 17, 64, 65)]
sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True, logprobs=3)
groups = [prompts] if batched else [[prompt] for prompt in prompts]
outputs = [output for group in groups for output in runner.generate(group, sampling)]
def exact(step):
    return [[token, entry.logprob.hex()] for token, entry in step.items()]
print(json.dumps([[o.token_ids, [exact(step) for step in o.outputs[0].logprobs]] for o in outputs]))
"""


def generated(directory: Path, isa: str | None, threads: int, block: int, batched: bool) -> list[object]:
    environment = {**os.environ, **({"ATB_CPU_ISA": isa} if isa else {})}
    arguments = [str(directory), str(threads), str(block), "batched" if batched else "alone"]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    outputs: list[object] = json.loads(result.stdout)
    return outputs


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from atb_testing import tiny_checkpoint

    directory = tmp_path_factory.mktemp("bits") / "model"
    return tiny_checkpoint(
        directory,
        "qwen2",
        dtype=getattr(torch, request.param),
        tie_word_embeddings=True,
        max_position_embeddings=512,
        num_attention_heads=14,
        num_key_value_heads=2,
        hidden_size=112,
    )


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> list[object]:
    return generated(checkpoint, None, 2, 128, batched=True)


@pytest.mark.parametrize(
    ("threads", "block", "batched"), [(1, 128, True), (3, 16, True), (2, 128, False), (1, 32, False)]
)
def test_company_threads_and_block_size_change_nothing(
    checkpoint: Path, expected: list[object], threads: int, block: int, batched: bool
) -> None:
    assert generated(checkpoint, None, threads, block, batched) == expected


@pytest.mark.parametrize(
    "isa",
    ["portable", "neon", "neon_dot", "neon_bf16", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated"],
)
def test_every_instruction_set_gives_the_same_bits(checkpoint: Path, expected: list[object], isa: str) -> None:
    if isa not in supported_isas():
        pytest.skip(f"this processor has no {isa}")
    assert generated(checkpoint, isa, 2, 64, batched=True) == expected
