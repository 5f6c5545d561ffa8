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

from atb_core.errors import RequestError
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.engine_loop import EngineLoop
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Call, Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Scheduler
from atb_core.runner.speculation import Drafter, SpeculativeConfig

MAX_LEN = 64
CONFIG = SpeculativeConfig()


class Guessing(Drafter):
    """Guesses tokens of a given text, each of them wrong with some probability."""

    def __init__(self, text: Sequence[int], wrong: float, count: int = 5) -> None:
        super().__init__(CONFIG)
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


def draft(tokens: list[int], limit: int = 8, cost: float = 0.0) -> list[int]:
    return Drafter(CONFIG).draft(tokens, limit, cost)


def test_a_guess_is_what_followed_the_newest_tokens_before() -> None:
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 4) == [7, 8, 9, 5]
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 2) == [7, 8]
    assert draft([1, 2, 3, 7, 8, 9, 5, 4, 2, 3]) == [], "two tokens are too few"
    assert draft([1, 2]) == []
    assert draft([1, 2, 3, 7, 8, 9, 5, 1, 2, 3], 0) == []


def test_the_longest_match_is_preferred_then_the_newest() -> None:
    assert draft([5, 1, 2, 3, 7, 6, 1, 2, 3, 8, 5, 1, 2, 3], 1) == [7]
    assert draft([4, 1, 2, 3, 7, 6, 1, 2, 3, 8, 5, 1, 2, 3], 1) == [8]


def test_a_text_that_repeats_itself_goes_on() -> None:
    assert draft([1, 2, 1, 2, 1, 2, 1, 2]) == [1, 2, 1, 2, 1, 2, 1, 2]


def test_a_text_may_grow_between_guesses() -> None:
    drafter, text = Drafter(CONFIG), [1, 2, 3, 4]
    assert drafter.draft(text, 8, 0.0) == []
    text += [1, 2, 3]
    assert drafter.draft(text, 1, 0.0) == [4]


def test_guesses_that_prove_wrong_are_left_out_but_for_a_few() -> None:
    drafter, text = Drafter(CONFIG), [1, 2, 3, 7, 8, 9, 5, 1, 2, 3]
    for _ in range(40):
        drafter.note(8, 0)
    drafts = [drafter.draft(text, 8, 0.2) for _ in range(64)]
    assert sum(map(bool, drafts)) == 2
    assert all(len(each) <= 2 for each in drafts)
    for _ in range(20):
        drafter.note(8, 8)
    assert len(drafter.draft(text, 8, 0.0)) == 8, "and made again when they prove right"


def test_costly_guesses_are_fewer() -> None:
    drafter, text = Drafter(CONFIG), [1, 2, 3, 7, 8, 9, 5, 1, 2, 3]
    sizes = [len(drafter.draft(text, 8, cost)) for cost in (0.01, 0.1, 0.3, 0.6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1] == 0


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"method": "medusa"}, "medusa"),
        ({"method": "ngram", "model": "x"}, "model"),
        ({"num_speculative_tokens": 0}, "num_speculative_tokens"),
        ({"num_speculative_tokens": "8"}, "num_speculative_tokens"),
        ({"num_speculative_tokens": True}, "num_speculative_tokens"),
        ({"prompt_lookup_min": 9}, "prompt_lookup_max"),
    ],
)
def test_a_faulty_configuration_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        SpeculativeConfig.of(given)


def test_a_model_without_mixed_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"speculative_config needs .*: it is a fake without them"):
        fake_runners(monkeypatch, mixes=False)(speculative_config={"method": "ngram"})
    fake_runners(monkeypatch, mixes=False)(speculative_config=None)
