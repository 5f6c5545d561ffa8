# SPDX-License-Identifier: Apache-2.0
"""Beside streams, long prompts are computed in slices between steps: everybody gets the tokens it gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runner.fake_loop import MAX_LEN, Setup, make, make_request, run
from runner.fake_model import FakeSlicedRun, expected_greedy

from atb_core.errors import EngineError
from atb_core.features.step import Step
from atb_core.runner.outputs import StreamChunk
from atb_core.runner.request import Call, Request
from atb_core.runner.sampling_params import SamplingParams

LONG = [5] * 40


def begin_stream(setup: Setup, prompt: tuple[int, ...] = (1, 2), count: int = 50) -> Iterator[StreamChunk]:
    """Returns a stream that has its first token."""
    stream = setup.loop.chunks(Call([make_request(0, [*prompt], SamplingParams(max_tokens=count))], streams=True))
    next(stream)
    return stream


def submit(setup: Setup, number: int, prompt: list[int], count: int = 2) -> Request:
    request = make_request(number, prompt, SamplingParams(max_tokens=count))
    setup.loop.submit(Call([request], streams=True))
    return request


def sliced(**options: Any) -> Setup:
    return make(**{"mixes": True, "chunk_size": 6, "sliced_size": 16, **options})


def test_a_stream_gets_a_token_between_slices() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    long, tokens = submit(setup, 1, LONG), []
    while not long.result.finished:
        tokens.append(next(stream).token_id)
    # Chunks of 16 tokens, two tokens a slice: a step of one token before each slice.
    assert setup.model.slices == 20
    assert [n for n in setup.model.tokens_per_step if n > 2] == [16, 16, 8]
    assert len(tokens) == 20 + 1
    assert long.result.token_ids == expected_greedy(LONG, 2)
    assert [*tokens, *(chunk.token_id for chunk in stream)] == expected_greedy([1, 2], 50)[1:]


def test_a_prompt_that_is_short_enough_shares_a_step() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    submit(setup, 1, LONG)
    next(stream)
    short = submit(setup, 2, [6] * 5)
    next(stream)
    assert setup.model.tokens_per_step[-1] == 1 + 5
    assert len(short.token_ids) == 6, "it does not wait for the long one"
    assert setup.model.slices == 2, "the long one goes on, too"


def test_prompts_that_are_short_enough_one_by_one_wait_for_a_step() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    shorts = [submit(setup, n, [n] * 5, 1) for n in range(2, 8)]
    while not all(short.result.finished for short in shorts):
        next(stream)
    assert setup.model.slices == 0
    assert [short.result.token_ids for short in shorts] == [expected_greedy([n] * 5, 1) for n in range(2, 8)]


@pytest.mark.parametrize("streams", [True, False])
def test_nobody_is_interrupted_for_callers_that_wait_for_results_alone(streams: bool) -> None:
    setup = sliced(max_prefill=20)
    first = Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=streams)
    setup.loop.submit(first)
    run(setup, [make_request(9, [9], SamplingParams(max_tokens=1))])
    long = submit(setup, 1, LONG)
    for _ in setup.loop.chunks(long.call):
        pass
    assert (setup.model.slices > 0) == streams
    assert long.result.token_ids == expected_greedy(LONG, 2)


def test_a_prompt_goes_on_when_the_streams_have_ended() -> None:
    setup = sliced()
    stream = begin_stream(setup, count=4)
    long = submit(setup, 1, LONG)
    assert [chunk.token_id for chunk in stream] == expected_greedy([1, 2], 4)[1:]
    assert 0 < setup.model.slices < 8
    for _ in setup.loop.chunks(long.call):
        pass
    assert long.result.token_ids == expected_greedy(LONG, 2)


def test_long_prompts_take_turns() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    one, others = submit(setup, 1, LONG), [submit(setup, n, [n] * 33, 1) for n in (2, 3)]
    seen = [[0, 0, 0]]
    while not others[1].result.finished:
        next(stream)
        if (now := [each.num_computed for each in (one, *others)]) != seen[-1]:
            seen.append(now)
    # Shorter ones pass the oldest, but not twice in a row.
    assert seen[1:4] == [[0, 16, 0], [16, 16, 0], [16, 32, 0]]
    for n, other in zip((2, 3), others, strict=True):
        assert other.result.token_ids == expected_greedy([n] * 33, 1)


def test_who_has_the_same_beginning_waits_and_shares_it() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    one, other = submit(setup, 1, LONG), submit(setup, 2, LONG)
    while not (one.result.finished and other.result.finished):
        next(stream)
    assert (one.result.num_cached_tokens, other.result.num_cached_tokens) == (0, 36)
    assert one.result.token_ids == other.result.token_ids == expected_greedy(LONG, 2)


def test_whoever_leaves_in_the_middle_of_a_chunk_writes_no_more() -> None:
    setup = sliced(num_blocks=16)
    stream = begin_stream(setup)
    long = submit(setup, 1, LONG)
    next(stream)
    next(stream)
    assert setup.model.slices == 2
    setup.loop.leave(long.call)
    # The blocks go to others at once.
    others = [submit(setup, n, [n] * 15, 5) for n in (2, 3)]
    while not all(other.result.finished for other in others):
        next(stream)
    assert [other.result.token_ids for other in others] == [expected_greedy([n] * 15, 5) for n in (2, 3)]
    assert long.token_ids == LONG
    stream.close()  # type: ignore[attr-defined]
    assert setup.blocks.num_free == setup.blocks.num_blocks


def test_whoever_loses_its_blocks_in_the_middle_of_a_chunk_begins_again() -> None:
    setup = sliced(num_blocks=16)
    older = begin_stream(setup, (3,) * 19, 40)
    long = submit(setup, 1, LONG)
    tokens = [chunk.token_id for chunk in older]
    for _ in setup.loop.chunks(long.call):
        pass
    assert long.result.metrics.preemptions == 1
    assert tokens == expected_greedy([3] * 19, 40)[1:]
    assert long.result.token_ids == expected_greedy(LONG, 2)
    assert setup.blocks.num_free == setup.blocks.num_blocks


@pytest.mark.parametrize("at_start", [True, False])
def test_an_error_of_a_slice_ends_its_own_call(monkeypatch: pytest.MonkeyPatch, at_start: bool) -> None:
    setup = sliced()
    stream = begin_stream(setup)

    def fail(*_: object) -> None:
        raise EngineError("out of range")

    if at_start:
        setup.loop._start = fail  # type: ignore[assignment]
    else:
        monkeypatch.setattr(FakeSlicedRun, "advance", fail)
    long = submit(setup, 1, LONG)
    assert [chunk.token_id for chunk in stream] == expected_greedy([1, 2], 50)[1:]
    assert isinstance(long.call.error, EngineError)
    assert setup.blocks.num_free == setup.blocks.num_blocks


@pytest.mark.parametrize("at_end", [False, True])
def test_an_interrupt_of_a_slice_changes_nothing(monkeypatch: pytest.MonkeyPatch, at_end: bool) -> None:
    setup = sliced()
    stream = begin_stream(setup)
    long = submit(setup, 1, LONG)
    advance, calls = FakeSlicedRun.advance, 0

    def interrupted(run: FakeSlicedRun, seconds: float) -> Any:
        nonlocal calls
        calls += 1
        outputs = advance(run, seconds)
        if calls == (8 if at_end else 3):
            assert (outputs is not None) == at_end
            raise KeyboardInterrupt
        return outputs

    monkeypatch.setattr(FakeSlicedRun, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            pass
    for _ in setup.loop.chunks(long.call):
        pass
    assert long.result.token_ids == expected_greedy(LONG, 2)
    assert setup.model.slices == (16 if at_end else 11), "the chunk begins again"


def test_closing_drops_what_was_begun() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    long = submit(setup, 1, LONG)
    next(stream)
    setup.loop.close(EngineError("closed"))
    assert isinstance(long.call.error, EngineError)
    assert setup.loop._sliced is None
    assert setup.blocks.num_free == setup.blocks.num_blocks
    (output,) = run(setup, [make_request(2, LONG, SamplingParams(max_tokens=2))])
    assert output.token_ids == expected_greedy(LONG, 2)


def test_a_prompt_with_an_adapter_is_taken_in_chunks_of_steps() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    request = make_request(1, LONG, SamplingParams(max_tokens=2))
    request.adapter = StandIn()
    setup.loop.submit(Call([request], streams=True))
    for _ in stream:
        pass
    assert setup.model.slices == 0
    assert request.result.token_ids == expected_greedy(LONG, 2)


class StandIn:
    """Stands for an adapter, of which the scheduler reads the digest alone."""

    digest = b"adapter"


def test_prompt_logprobs_have_a_step_of_their_own() -> None:
    setup = sliced()
    stream = begin_stream(setup)
    request = make_request(1, LONG, SamplingParams(max_tokens=2, prompt_logprobs=1))
    setup.loop.submit(Call([request], streams=True))
    for _ in stream:
        pass
    assert setup.model.slices == 0
    assert request.result.token_ids == expected_greedy(LONG, 2)


def test_steps_see_whole_prompts_as_prefill() -> None:
    setup, starts = sliced(sliced_size=64, max_prefill=64), list[Step]()
    stream = begin_stream(setup)
    start = setup.loop._start
    assert start is not None
    setup.loop._start = lambda step: starts.append(step) or start(step)  # type: ignore[func-returns-value]
    submit(setup, 1, LONG)
    for _ in stream:
        pass
    assert [(step.phase, len(step.input_ids)) for step in starts] == [("prefill", 40)]


@settings(max_examples=60, deadline=None)
@given(
    # Prompts, lengths of answers, whether their callers stream, and after how many tokens they leave.
    cases=st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 20), st.booleans(), st.integers(1, 40)
        ),
        min_size=1,
        max_size=7,
    ),
    block_size=st.integers(1, 7),
    spare=st.integers(0, 12),
    chunk_size=st.integers(1, 8),
    sliced_size=st.integers(1, 20),
    max_batch=st.integers(1, 8),
)
def test_everybody_gets_what_it_gets_alone(
    cases: list[tuple[list[int], int, bool, int]], block_size: int, spare: int, chunk_size: int, sliced_size: int,
    max_batch: int,
) -> None:  # fmt: skip
    setup = sliced(
        num_blocks=-(-MAX_LEN // block_size) + spare, block_size=block_size, chunk_size=chunk_size,
        sliced_size=sliced_size, max_batch=max_batch,
    )  # fmt: skip
    streams = []
    for number, (prompt, count, reads, _) in enumerate(cases):
        streams.append(setup.loop.chunks(Call([make_request(number, prompt, SamplingParams(max_tokens=count))], reads)))
    tokens: list[list[int]] = [[] for _ in cases]
    left = dict(enumerate(streams))
    while left:
        for number, stream in [*left.items()]:
            chunk = next(stream, None)
            tokens[number] += [] if chunk is None else [chunk.token_id]
            if chunk is None or len(tokens[number]) >= cases[number][3]:
                stream.close()
                del left[number]
    for got, (prompt, count, reads, leaves) in zip(tokens, cases, strict=True):
        count = min(count, MAX_LEN - len(prompt), leaves) if reads else 0
        assert got == expected_greedy(prompt, count)
    assert setup.blocks.num_free == setup.blocks.num_blocks
