# SPDX-License-Identifier: Apache-2.0
"""The whole runner on a real network and real engines, on a tiny random checkpoint."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from runner.tiny_tokenizers import byte_level

from atb_core import ModelRunner, SamplingParams
from atb_core.errors import RequestError
from atb_testing import load_reference, tiny_checkpoint

PROMPTS = [[5], [9, 8, 7], list(range(100, 140)), [3] * 17]
COUNT = 24


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", "llama", vocab_size=512)
    byte_level().save(str(path / "tokenizer.json"))
    return path


def open_runner(directory: Path, backend: str = "cpu", **options: Any) -> ModelRunner:
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
    logprobs = output.outputs[0].logprobs
    assert logprobs is not None
    with torch.no_grad():
        logits = model(torch.tensor([prompt + output.token_ids])).logits[0]
    for step, reported in enumerate(logprobs):
        expected = logits[len(prompt) + step - 1].double().log_softmax(-1)
        assert list(reported) == expected.topk(5).indices.tolist()
        for token, entry in reported.items():
            assert entry.logprob == pytest.approx(float(expected[token]), abs=1e-3)


def test_prompt_logprobs_are_hugging_faces(
    directory: Path, runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_reference(directory)
    prompt = PROMPTS[2]
    params = SamplingParams(max_tokens=3, ignore_eos=True, prompt_logprobs=2)
    (plain,) = runner.generate([prompt], dataclasses.replace(params, prompt_logprobs=None))
    (output,) = runner.generate([prompt], params)
    assert output.token_ids == plain.token_ids
    assert output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == len(prompt)
    assert output.prompt_logprobs[0] is None
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
    for position, reported in enumerate(output.prompt_logprobs[1:], start=1):
        assert reported is not None
        expected = logits[position - 1].double().log_softmax(-1)
        assert set(reported) == {prompt[position], *expected.topk(2).indices.tolist()}
        for token, entry in reported.items():
            assert entry.logprob == pytest.approx(float(expected[token]), abs=1e-3)
    # In parts of two rows each. Only the C++ engine promises the same bits.
    monkeypatch.setattr("atb_core.runner.engine_loop._LOGITS_BYTES", 2 * 4 * runner.vocab_size)
    (in_parts,) = runner.generate([prompt], params)
    if runner.model.backend.name == "cpu":
        assert in_parts.prompt_logprobs == output.prompt_logprobs
    assert in_parts.prompt_logprobs is not None
    for part, whole in zip(in_parts.prompt_logprobs[1:], output.prompt_logprobs[1:], strict=True):
        assert part is not None and whole is not None
        assert [entry.logprob for entry in part.values()] == pytest.approx([entry.logprob for entry in whole.values()])
    assert in_parts.token_ids == output.token_ids


def test_a_closed_runner_frees_its_engine_and_refuses_to_run(directory: Path) -> None:
    with open_runner(directory) as runner:
        runner.generate([1, 2], SamplingParams(max_tokens=2))
        model = weakref.ref(runner.model)
    assert model() is None
    assert runner.kv_cache == []
    runner.close()
    with pytest.raises(RequestError, match="was closed"):
        runner.generate([1, 2])


@pytest.mark.parametrize(
    "options",
    [
        {"block_size": 1, "max_model_len": 70},
        {"block_size": 128},
        {"max_num_seqs": 1},
        {"max_num_batched_tokens": 1},
        {"max_model_len": 70, "num_blocks": 5},
        {"speculative_config": {"prompt_lookup_min": 1, "num_speculative_tokens": 5}},
    ],
    ids=["small blocks", "large blocks", "one at a time", "small prefills", "preemptions", "guesses"],
)
def test_the_schedule_changes_no_bit(directory: Path, options: dict[str, Any]) -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=COUNT, ignore_eos=True, logprobs=2)
    expected = open_runner(directory).generate(PROMPTS, params)
    outputs = open_runner(directory, **options).generate(PROMPTS, params)
    assert [output.token_ids for output in outputs] == [output.token_ids for output in expected]
    assert [output.outputs[0].logprobs for output in outputs] == [output.outputs[0].logprobs for output in expected]
    if "num_blocks" in options:
        assert sum(output.metrics.preemptions for output in outputs) > 0
    if "speculative_config" in options:
        assert sum(output.metrics.num_draft_tokens for output in outputs) > 0


def test_sharing_prefixes_and_taking_chunks_change_no_bit(directory: Path) -> None:
    params = SamplingParams(max_tokens=COUNT, ignore_eos=True, logprobs=2)
    turns = [list(range(100, 140)), [*range(100, 135), 7, 8], [*range(100, 140), 9, *range(30)], [4] * 70]
    alone = [open_runner(directory, enable_prefix_caching=False).generate([turn], params)[0] for turn in turns]
    for options in ({"block_size": 4}, {"block_size": 16, "max_num_batched_tokens": 5}, {"num_blocks": 20}):
        runner = open_runner(directory, max_model_len=128, **options)
        one_by_one = [runner.generate([turn], params)[0] for turn in turns]
        together = runner.generate(turns, params)
        assert one_by_one[2].num_cached_tokens >= 32
        assert [output.outputs for output in one_by_one] == [output.outputs for output in alone]
        assert [output.outputs for output in together] == [output.outputs for output in alone]
        assert runner.num_free_blocks == runner.num_blocks


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv_cache_dtype", ["auto", "int8"])
def test_slices_beside_streams_change_no_bit(tmp_path: Path, dtype: str, kv_cache_dtype: str) -> None:
    directory = tiny_checkpoint(tmp_path / "model", "llama", vocab_size=512, max_position_embeddings=1024)
    params = SamplingParams(max_tokens=4, ignore_eos=True, logprobs=3)
    prompts = [[*range(n, n + 200), n] for n in (1, 2, 3)]
    options = {"dtype": dtype, "kv_cache_dtype": kv_cache_dtype, "max_num_batched_tokens": 80, "load_tokenizer": False}
    with open_runner(directory, **options) as runner:
        alone = [output.outputs[0].logprobs for output in runner.generate(prompts, params)]
    with open_runner(directory, **options) as runner:
        loop, began = runner.engine_loop, list[int]()
        start = loop._start
        assert start is not None
        loop._start = lambda step: began.append(len(step.input_ids)) or start(step)  # type: ignore[func-returns-value]
        # One node a slice; a step beside the stream has room for no prompt.
        loop.pace.slice_seconds = lambda batch: 0.0  # type: ignore[method-assign]
        loop.pace.chunk_size = lambda num_decoding, context: 4  # type: ignore[method-assign]
        stream = runner.generate([7], SamplingParams(max_tokens=900, ignore_eos=True), stream=True)
        next(iter(stream))
        beside = [output.outputs[0].logprobs for output in runner.generate(prompts, params)]
        # Until the stream, which nobody reads, is paused.
        assert sum(began) > 200
    assert beside == alone


def test_text_streams(runner: ModelRunner) -> None:
    params = SamplingParams(max_tokens=COUNT, ignore_eos=True)
    (output,) = runner.generate("the quick 你好", params)
    assert "".join(chunk.text for chunk in runner.generate("the quick 你好", params, stream=True)) == output.text
    assert runner.tokenizer is not None
    assert output.text == runner.tokenizer.decode(output.token_ids)
