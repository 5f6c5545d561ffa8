# SPDX-License-Identifier: Apache-2.0
"""The whole runner on a real network and real engines, on a tiny random checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runner.tiny_tokenizers import byte_level

from atb_core import ModelRunner, SamplingParams
from atb_testing import load_reference, tiny_checkpoint

PROMPTS = [[5], [9, 8, 7], list(range(100, 140)), [3] * 17]
COUNT = 24


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", "llama", vocab_size=512)
    byte_level().save(str(path / "tokenizer.json"))
    return path


def open_runner(directory: Path, backend: str = "cpu", **options: int) -> ModelRunner:
    return ModelRunner(directory, backend=backend, num_threads=2, **{"block_size": 16, **options})


@pytest.fixture(scope="module", params=["cpu", "reference"])
def runner(directory: Path, request: pytest.FixtureRequest) -> ModelRunner:
    return open_runner(directory, request.param)


def test_greedy_tokens_are_hugging_faces(directory: Path, runner: ModelRunner) -> None:
    model = load_reference(directory)
    outputs = runner.generate(PROMPTS, SamplingParams(max_tokens=COUNT, ignore_eos=True))
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, min_new_tokens=COUNT, max_new_tokens=COUNT, pad_token_id=0
        )
        assert output.token_ids == expected[0, len(prompt) :].tolist()


def test_logprobs_are_hugging_faces(directory: Path, runner: ModelRunner) -> None:
    model = load_reference(directory)
    prompt = PROMPTS[2]
    (output,) = runner.generate([prompt], SamplingParams(max_tokens=3, ignore_eos=True, logprobs=5))
    assert output.logprobs is not None
    with torch.no_grad():
        logits = model(torch.tensor([prompt + output.token_ids])).logits[0]
    for step, reported in enumerate(output.logprobs):
        expected = logits[len(prompt) + step - 1].double().log_softmax(-1)
        assert list(reported.top) == expected.topk(5).indices.tolist()
        for token, value in reported.top.items():
            assert value == pytest.approx(float(expected[token]), abs=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 1, "max_model_len": 70},
        {"block_size": 128},
        {"max_batch_size": 1},
        {"max_prefill_tokens": 1},
        {"max_model_len": 70, "num_blocks": 5},
    ],
    ids=["small blocks", "large blocks", "one at a time", "small prefills", "preemptions"],
)
def test_the_schedule_changes_no_bit(directory: Path, options: dict[str, int]) -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=COUNT, ignore_eos=True, logprobs=2)
    expected = open_runner(directory).generate(PROMPTS, params)
    outputs = open_runner(directory, **options).generate(PROMPTS, params)
    assert [output.token_ids for output in outputs] == [output.token_ids for output in expected]
    assert [output.logprobs for output in outputs] == [output.logprobs for output in expected]
    if "num_blocks" in options:
        assert sum(output.metrics.preemptions for output in outputs) > 0


def test_text_streams(runner: ModelRunner) -> None:
    params = SamplingParams(max_tokens=COUNT, ignore_eos=True)
    (output,) = runner.generate("the quick 你好", params)
    assert "".join(chunk.text for chunk in runner.generate("the quick 你好", params, stream=True)) == output.text
    assert runner.tokenizer is not None
    assert output.text == runner.tokenizer.decode(output.token_ids)
