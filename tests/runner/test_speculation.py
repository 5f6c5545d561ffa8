# SPDX-License-Identifier: Apache-2.0
"""Guessing tokens changes no token: it only saves steps, and is left out where it would not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner.fake_model import VOCAB, FakeModel, expected_greedy
from runner.fake_runner import fake_runners

from atb_core.errors import PluginError, RequestError
from atb_core.extensions import Contribution, Owner
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.drafting import DRAFT_METHODS, Drafter, DraftMethod, drafter_maker
from atb_core.runner.engine_loop import EngineLoop
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Call, Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Scheduler

MAX_LEN = 64


class Guessing(Drafter):
    """Guesses tokens of a given text, each of them wrong with some probability."""

    def __init__(self, text: Sequence[int], wrong: float, count: int = 5) -> None:
        self.text, self.wrong, self.count = text, wrong, count
        self.random = random.Random(len(text))
        self.noted: list[tuple[int, int]] = []

    def draft(self, token_ids: Sequence[int], limit: int, cost: float) -> list[int]:
        right = self.text[len(token_ids) : len(token_ids) + min(limit, self.count)]
        return [VOCAB - 1 - token if self.random.random() < self.wrong else token for token in right]

    def note(self, num_drafted: int, num_accepted: int) -> None:
        self.noted.append((num_drafted, num_accepted))


def make_loop(drafters: list[Drafter], num_blocks: int = 64, batch: int = 8) -> tuple[EngineLoop, FakeModel]:
    model = FakeModel(num_blocks, 4)
    blocks, make_drafter = BlockManager(num_blocks, 4), iter(drafters).__next__
    scheduler = Scheduler(blocks, batch, 40, can_mix=lambda: True, shares_prefixes=True, make_drafter=make_drafter)
    return EngineLoop(model.forward, scheduler, [], max_model_len=MAX_LEN, vocab_size=VOCAB), model


def make_request(prompt: list[int], params: SamplingParams, stop_ids: tuple[int, ...] = (), **options: Any) -> Request:
    total = min(MAX_LEN, len(prompt) + (params.max_tokens or MAX_LEN))
    result = RequestOutput("0", None, prompt, [], finished=False)
    return Request(result, 0, params, total, frozenset(stop_ids), **options)


def run(loop: EngineLoop, requests: list[Request]) -> list[list[int]]:
    for _ in loop.chunks(Call(requests, streams=True)):
        pass
    assert loop.num_running == 0
    return [request.result.token_ids for request in requests]


def greedy(count: int) -> SamplingParams:
    return SamplingParams(max_tokens=count)


def test_right_guesses_save_steps() -> None:
    prompt, expected = [3, 1, 4], expected_greedy([3, 1, 4], 13)
    drafter = Guessing(prompt + expected, wrong=0.0)
    loop, model = make_loop([drafter])
    request = make_request(prompt, greedy(13))
    assert run(loop, [request]) == [expected]
    # The prompt gives a token, then twice five guesses and the token after them.
    assert [len(prompt), 6, 6] == model.tokens_per_step
    assert drafter.noted == [(5, 5), (5, 5)]
    assert (request.result.metrics.num_draft_tokens, request.result.metrics.num_accepted_tokens) == (10, 10)


def test_a_wrong_guess_costs_the_ones_after_it_alone() -> None:
    prompt, expected = [3, 1, 4], expected_greedy([3, 1, 4], 13)
    text = prompt + expected
    text[6] = VOCAB - 1 - text[6]
    drafter = Guessing(text, wrong=0.0)
    loop, _ = make_loop([drafter])
    assert run(loop, [make_request(prompt, greedy(13))]) == [expected]
    assert drafter.noted[0] == (5, 2)


@settings(max_examples=30, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 30), min_size=6, max_size=6),
    wrong=st.sampled_from([0.0, 0.3, 1.0]),
    num_blocks=st.sampled_from([16, 24, 64]),
)
def test_every_request_gets_the_tokens_that_it_gets_alone(
    prompts: list[list[int]], lengths: list[int], wrong: float, num_blocks: int
) -> None:
    expected = [
        expected_greedy(each, min(count, MAX_LEN - len(each))) for each, count in zip(prompts, lengths, strict=False)
    ]
    drafters = [Guessing(a + b, wrong) for a, b in zip(prompts, expected, strict=True)]
    loop, _ = make_loop(list(drafters), num_blocks)
    requests = [make_request(each, greedy(count)) for each, count in zip(prompts, lengths, strict=False)]
    assert run(loop, requests) == expected
    assert loop.scheduler.blocks.num_free == num_blocks


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_tokens=20, seed=5, temperature=0.7),
        SamplingParams(max_tokens=20, seed=5, temperature=0.7, top_p=0.5, repetition_penalty=1.3),
        SamplingParams(max_tokens=20, frequency_penalty=1.5, presence_penalty=0.5, logprobs=2),
    ],
    ids=["sampled", "sampled with penalties", "greedy with penalties"],
)
def test_sampling_draws_the_same_tokens(params: SamplingParams) -> None:
    loop, plain = make_loop([Guessing([], 1.0)])
    request = make_request([3, 1, 4], params)
    (expected,) = run(loop, [request])
    loop, model = make_loop([Guessing([3, 1, 4, *expected], wrong=0.2)])
    guessed = make_request([3, 1, 4], params)
    assert run(loop, [guessed]) == [expected]
    assert guessed.result.outputs[0].logprobs == request.result.outputs[0].logprobs
    assert len(model.steps) < len(plain.steps)


def test_a_stop_token_among_right_guesses_ends_the_text_there() -> None:
    expected = expected_greedy([3, 1, 4], 13)
    loop, _ = make_loop([Guessing([3, 1, 4, *expected], wrong=0.0)])
    request = make_request([3, 1, 4], greedy(13), stop_ids=(expected[3],))
    (tokens,) = run(loop, [request])
    assert tokens == expected[: expected.index(expected[3]) + 1]
    assert request.completion.finish_reason == "stop"


def test_a_token_mask_sees_every_token_once_and_in_order() -> None:
    class Mask:
        def __init__(self) -> None:
            self.accepted: list[int] = []
            self.asked: list[int] = []

        def next_mask(self) -> None:
            self.asked.append(len(self.accepted))

        def accept(self, token_id: int) -> None:
            self.accepted.append(token_id)

    expected = expected_greedy([3, 1, 4], 13)
    mask = Mask()
    loop, _ = make_loop([Guessing([3, 1, 4, *expected], wrong=0.3)])
    run(loop, [make_request([3, 1, 4], greedy(13), token_mask=mask)])
    assert mask.accepted == expected
    assert mask.asked == list(range(13))


def test_a_model_without_mixed_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"speculative_config needs .*: it is a fake without them"):
        fake_runners(monkeypatch, mixes=False)(speculative_config={"method": "ngram"})
    fake_runners(monkeypatch, mixes=False)(speculative_config=None)


def methods(*contributed: DraftMethod) -> list[Contribution[Any]]:
    return [Contribution(Owner(f"package-{number}"), method) for number, method in enumerate(contributed)]


def test_a_method_takes_the_other_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DraftMethod("again", lambda entries: lambda: Guessing([entries["token"]], 0.0))
    monkeypatch.setattr(DRAFT_METHODS, "all", lambda: methods(method))
    assert drafter_maker({"method": "again", "token": 7})().draft([], 5, 0.0) == [7]


def test_a_method_that_no_plugin_has_is_refused_with_the_package_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DRAFT_METHODS, "all", list)
    with pytest.raises(RequestError, match="'ngram' of speculative_config needs the package atb-speculation") as caught:
        drafter_maker({})
    assert "pip install" in str(caught.value.hint)
    for method in ("medusa", 3):
        with pytest.raises(RequestError, match=f"offers the method {method!r} of speculative_config"):
            drafter_maker({"method": method})


def test_one_method_of_two_plugins_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    method = DraftMethod("again", lambda entries: lambda: Guessing([], 0.0))
    monkeypatch.setattr(DRAFT_METHODS, "all", lambda: methods(method, method))
    with pytest.raises(PluginError, match="package-0 and package-1"):
        drafter_maker({"method": "again"})
