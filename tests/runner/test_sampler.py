# SPDX-License-Identifier: Apache-2.0
"""Filters as Hugging Face defines them, tokens from one row alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atb_core.errors import EngineError
from atb_core.runner import sampler
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Request
from atb_core.runner.sampler import SampledToken, filtered_candidates
from atb_core.runner.sampling_params import SamplingParams


def make_request(params: SamplingParams, prompt: list[int] | None = None) -> Request:
    return Request(RequestOutput("0", None, prompt or [1], []), 0, params, 10_000, frozenset())


def sample(logits: torch.Tensor, requests: list[Request]) -> list[SampledToken]:
    """The tokens of rows that all have one."""
    tokens = sampler.sample(sampler.as_float32(logits), requests)
    assert all(isinstance(token, SampledToken) for token in tokens)
    return tokens  # type: ignore[return-value]


def rows(count: int, vocab: int, seed: int = 0, scale: float = 4.0) -> torch.Tensor:
    return torch.randn(count, vocab, generator=torch.Generator().manual_seed(seed)) * scale


def kept_by_hugging_face(logits: torch.Tensor, params: SamplingParams) -> tuple[set[int], torch.Tensor]:
    """The tokens left and their probabilities, by transformers' processors in its order, in float64."""
    from transformers.generation import logits_process as hf

    scores = logits.double()[None]
    scores = hf.TemperatureLogitsWarper(params.effective_temperature)(None, scores)
    if params.top_k > 0:
        scores = hf.TopKLogitsWarper(params.top_k)(None, scores)
    if params.top_p < 1.0:
        scores = hf.TopPLogitsWarper(params.top_p)(None, scores)
    if params.min_p > 0.0:
        scores = hf.MinPLogitsWarper(params.min_p)(None, scores)
    probabilities = scores[0].softmax(-1)
    return set(torch.isfinite(scores[0]).nonzero().flatten().tolist()), probabilities


@pytest.mark.parametrize("vocab", [1, 2, 50, 6000, 20_000])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0},
        {"temperature": 0.3},
        {"top_k": 1},
        {"top_k": 40},
        {"top_k": 100_000},
        {"top_p": 0.5},
        {"top_p": 0.97},
        {"top_p": 0.999999},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"temperature": 1.7, "top_k": 64, "top_p": 0.9, "min_p": 0.03},
        {"temperature": 0.6, "top_p": 0.8, "min_p": 0.2},
        {"temperature": 3.0, "top_k": 30, "min_p": 0.5},
    ],
)
def test_filters_keep_what_hugging_face_keeps(vocab: int, options: dict[str, float]) -> None:
    params = SamplingParams(**{"temperature": 1.0, **options})
    for seed, scale in enumerate([1.0, 3.0, 10.0]):
        logits = rows(1, vocab, seed, scale)[0]
        candidates = filtered_candidates(logits.numpy(), int(logits.argmax()), params)
        expected, probabilities = kept_by_hugging_face(logits, params)
        ids = np.arange(vocab) if candidates.token_ids is None else candidates.token_ids
        weights = candidates.weights.astype(np.float64)
        got = dict(zip(ids.tolist(), (weights / weights.sum()).tolist(), strict=True))
        # Rounding may move a token whose share of the distribution is next to nothing across the edge of top-p.
        assert sum(float(probabilities[token]) for token in expected - set(got)) < 1e-5
        assert sum(got[token] for token in set(got) - expected) < 1e-5
        for token in list(got)[:100]:
            assert got[token] == pytest.approx(float(probabilities[token]), rel=1e-3, abs=1e-6)


def test_top_p_is_right_when_the_nucleus_is_most_of_a_large_vocabulary() -> None:
    logits = rows(1, 30_000, scale=0.5)[0]
    params = SamplingParams(temperature=1.0, top_p=0.8)
    candidates = filtered_candidates(logits.numpy(), int(logits.argmax()), params)
    expected, _ = kept_by_hugging_face(logits, params)
    assert candidates.token_ids is not None
    assert len(expected) > 4096
    assert len(set(candidates.token_ids.tolist()) ^ expected) <= 1


def test_the_repetition_penalty_is_hugging_faces() -> None:
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    for penalty in (0.7, 1.2, 5.0):
        for seed in range(20):
            logits = rows(1, 30, seed)
            prompt = [3, 5, 5, 7, int(logits.argmax())]
            item = make_request(SamplingParams(repetition_penalty=penalty), prompt)
            expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([prompt]), logits.clone())
            assert sample(logits, [item])[0].token_id == int(expected.argmax())


def test_generated_tokens_are_penalised_too() -> None:
    logits = torch.tensor([[1.0, 0.9, 0.8]])
    item = make_request(SamplingParams(repetition_penalty=2.0), [2])
    picked = []
    for _ in range(3):
        picked.append(sample(logits, [item])[0].token_id)
        item.append(picked[-1], None)
    assert picked == [0, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_greedy_takes_the_largest_and_of_equals_the_first(dtype: torch.dtype) -> None:
    # Wide enough that the conversion to float32 happens in several pieces.
    logits = rows(5, 70_001).to(dtype)
    logits[2, 40_000] = logits[2, 69_999] = 30.0
    items = [make_request(SamplingParams()) for _ in range(5)]
    picked = [token.token_id for token in sample(logits, items)]
    assert picked == logits.float().numpy().argmax(-1).tolist()
    assert picked[2] == 40_000


OPTIONS = [
    SamplingParams(),
    SamplingParams(seed=3),
    SamplingParams(temperature=0.7, top_k=20, top_p=0.9, seed=4),
    SamplingParams(temperature=1.3, top_p=0.95, seed=5, repetition_penalty=1.2, logprobs=4),
    SamplingParams(min_p=0.05, seed=6, logprobs=0),
    SamplingParams(temperature=0.0, repetition_penalty=1.5),
    SamplingParams(logit_bias={3: 5.0}, presence_penalty=1.0, frequency_penalty=-0.5, min_tokens=2, seed=7),
]


@settings(max_examples=30, deadline=None)
@given(
    picks=st.lists(st.integers(0, len(OPTIONS) - 1), min_size=1, max_size=6),
    vocab=st.sampled_from([7, 1000, 5003]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_a_row_alone_gives_the_same_bits_as_in_a_batch(picks: list[int], vocab: int, dtype: torch.dtype) -> None:
    logits = rows(len(picks), vocab, seed=vocab).to(dtype)
    together = sample(logits, [make_request(OPTIONS[pick], [1, 2]) for pick in picks])
    for row, pick in enumerate(picks):
        (alone,) = sample(logits[row : row + 1].clone(), [make_request(OPTIONS[pick], [1, 2])])
        assert alone == together[row]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -50.0, 1.5]]).repeat(1, 300)
    logits[:, 5:] = -60.0
    item = make_request(SamplingParams(temperature=1.0, seed=11))
    counts = np.bincount([sample(logits, [item])[0].token_id for _ in range(4000)], minlength=5)
    expected = logits[0, :5].softmax(-1).numpy() * 4000
    assert counts[3] == 0
    assert len(counts) == 5
    # Five standard deviations; the seed is fixed, so this holds or does not.
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected + 1))


@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("options", [{}, {"top_k": 900}, {"top_p": 0.999}])
def test_a_token_that_cannot_be_is_never_drawn(uniform: float, options: dict[str, float]) -> None:
    logits = torch.full((1, 2000), -math.inf)
    logits[0, 700] = 1.0
    logits[0, 800] = 2.0
    item = make_request(SamplingParams(temperature=1.0, **options))

    class Fixed:
        def random(self) -> float:
            return uniform

    item.rng = Fixed()  # type: ignore[assignment]
    assert sample(logits, [item])[0].token_id in (700, 800)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    logits = rows(1, 1000, scale=1.0)

    def tokens(seed: int) -> list[int]:
        item = make_request(SamplingParams(seed=seed))
        return [sample(logits, [item])[0].token_id for _ in range(20)]

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = rows(1, 500)
    params = SamplingParams(temperature=0.5, top_k=3, repetition_penalty=1.3, seed=1, logprobs=5)
    (token,) = sample(logits, [make_request(params)])
    expected = logits[0].double().log_softmax(-1)
    best = expected.topk(5)
    assert token.logprobs is not None
    chosen = token.logprobs[token.token_id]
    assert next(iter(token.logprobs)) == token.token_id
    assert chosen.logprob == pytest.approx(float(expected[token.token_id]), abs=1e-6)
    assert chosen.rank == int((expected > expected[token.token_id]).sum()) + 1
    assert set(token.logprobs) == {token.token_id, *best.indices.tolist()}
    for rank, (token_id, value) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True), start=1):
        assert token.logprobs[token_id].logprob == pytest.approx(value, abs=1e-6)
        assert token.logprobs[token_id].rank == rank


def test_the_chosen_token_is_reported_though_it_is_not_among_the_most_probable() -> None:
    logits = torch.arange(10, dtype=torch.float32)[None]
    (token,) = sample(logits, [make_request(SamplingParams(logit_bias={2: 50.0}, logprobs=3))])
    assert token.token_id == 2
    assert token.logprobs is not None
    assert list(token.logprobs) == [2, 9, 8, 7]
    assert [entry.rank for entry in token.logprobs.values()] == [8, 1, 2, 3]


def test_equal_logits_share_a_rank() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0, 1.0]])
    (token,) = sample(logits, [make_request(SamplingParams(logprobs=4))])
    assert token.logprobs is not None
    assert {token_id: entry.rank for token_id, entry in token.logprobs.items()} == {1: 1, 2: 1, 3: 3, 0: 4}


def test_zero_logprobs_report_the_chosen_token_alone_and_many_are_cut_to_the_vocabulary() -> None:
    logits = rows(1, 6)
    (none,) = sample(logits, [make_request(SamplingParams(logprobs=0))])
    (many,) = sample(logits, [make_request(SamplingParams(logprobs=100))])
    assert none.logprobs is not None
    assert list(none.logprobs) == [none.token_id]
    assert many.logprobs is not None
    assert len(many.logprobs) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(seed=1), SamplingParams(repetition_penalty=1.1)])
def test_logits_that_are_not_numbers_are_an_error(bad: float, params: SamplingParams) -> None:
    logits = rows(1, 50)
    logits[0, 17] = bad
    logits = torch.cat([logits, rows(1, 50)])
    error, token = sampler.sample(sampler.as_float32(logits), [make_request(params), make_request(params)])
    assert isinstance(error, EngineError)
    assert "logits contain" in error.message
    assert isinstance(token, SampledToken)


@pytest.mark.parametrize("temperature", [1e-4, 1e-5, 100.0, 1e30])
def test_extreme_temperatures_do_not_overflow(temperature: float) -> None:
    logits = rows(1, 50, scale=1e4)
    (token,) = sample(logits, [make_request(SamplingParams(temperature=temperature, seed=1))])
    assert 0 <= token.token_id < 50
