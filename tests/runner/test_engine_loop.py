# SPDX-License-Identifier: Apache-2.0
"""Continuous batching: every request gets the tokens it would get alone, and no block is lost."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runner.fake_loop import MAX_LEN, Setup, make, make_request, run
from runner.fake_model import VOCAB, expected_greedy

from atb_core.errors import EngineError
from atb_core.features.step import Step
from atb_core.runner.request import Call, Request
from atb_core.runner.sampling_params import SamplingParams

prompts_and_lengths = st.lists(
    st.tuples(
        st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30),
        st.integers(1, 30),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=40, deadline=None)
@given(
    cases=prompts_and_lengths,
    block_size=st.integers(1, 7),
    spare=st.integers(0, 12),
    max_batch=st.integers(1, 8),
    max_prefill=st.integers(1, 80),
    mixes=st.booleans(),
)
def test_a_batch_gives_each_request_what_it_gets_alone(
    cases: list[tuple[list[int], int]], block_size: int, spare: int, max_batch: int, max_prefill: int, mixes: bool
) -> None:
    # From just enough blocks for one context (so that requests preempt each other) to a few more.
    setup = make(-(-MAX_LEN // block_size) + spare, block_size, max_batch, max_prefill, mixes)
    requests = [
        make_request(index, prompt, SamplingParams(max_tokens=count)) for index, (prompt, count) in enumerate(cases)
    ]
    outputs = run(setup, requests)
    for output, (prompt, count) in zip(outputs, cases, strict=True):
        count = min(count, MAX_LEN - len(prompt))
        assert output.token_ids == expected_greedy(prompt, count)
        assert output.outputs[0].finish_reason == "length"
    assert setup.blocks.num_free == setup.blocks.num_blocks


def test_when_blocks_run_out_the_youngest_waits_and_is_computed_again() -> None:
    setup = make(num_blocks=16, block_size=4)
    prompts = [[1] * 20, [2] * 20, [3] * 20]
    requests = [make_request(i, prompt, SamplingParams(max_tokens=30)) for i, prompt in enumerate(prompts)]
    outputs = run(setup, requests)
    assert outputs[0].metrics.preemptions == 0
    assert sum(output.metrics.preemptions for output in outputs) > 0
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.token_ids == expected_greedy(prompt, 30)


def test_sampled_tokens_survive_a_preemption() -> None:
    params = SamplingParams(temperature=0.9, seed=5, max_tokens=30)
    prompts = [[1] * 20, [2] * 20, [3] * 20]

    def tokens(num_blocks: int) -> list[list[int]]:
        requests = [make_request(i, prompt, params) for i, prompt in enumerate(prompts)]
        return [output.token_ids for output in run(make(num_blocks=num_blocks), requests)]

    assert tokens(16) == tokens(64)


def test_prefill_steps_are_bounded_in_tokens_and_decode_steps_in_sequences() -> None:
    setup = make(max_batch=3, max_prefill=10)
    lengths = [4, 4, 4, 25, 1]
    run(setup, [make_request(i, [i] * n, SamplingParams(max_tokens=4)) for i, n in enumerate(lengths)])
    assert max(batch for is_prefill, batch in setup.model.steps) <= 3
    # 4+4 fit in 10, a third does not; 25 alone is more than 10 and still goes, alone.
    assert setup.model.steps[:2] == [(True, 2), (True, 1)]


def test_a_new_request_joins_the_running_ones() -> None:
    setup = make()
    first = make_request(0, [1, 2, 3], SamplingParams(max_tokens=10))
    chunks = setup.loop.chunks(Call([first], streams=True))
    tokens = [next(chunks).token_id for _ in range(4)]
    outputs = run(setup, [make_request(1, [4, 5], SamplingParams(max_tokens=3))])
    assert setup.model.steps[4:6] == [(True, 1), (False, 2)]
    assert outputs[0].token_ids == expected_greedy([4, 5], 3)
    # What came while another caller ran the steps was kept.
    tokens += [chunk.token_id for chunk in chunks]
    assert tokens == expected_greedy([1, 2, 3], 10)


def test_a_stop_token_ends_the_text_and_is_reported() -> None:
    tokens = expected_greedy([5, 6], 12)
    stop = tokens[6]
    setup = make()
    (output,) = run(setup, [make_request(0, [5, 6], SamplingParams(max_tokens=12), (stop,))])
    assert output.token_ids == tokens[: tokens.index(stop) + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)


def test_a_sequence_may_fill_the_context_to_the_last_token() -> None:
    setup = make(num_blocks=16, block_size=4)
    (output,) = run(setup, [make_request(0, [7] * (MAX_LEN - 1), SamplingParams(max_tokens=None))])
    assert output.token_ids == expected_greedy([7] * (MAX_LEN - 1), 1)
    assert output.outputs[0].finish_reason == "length"


@pytest.mark.parametrize("step", [0, 1, 5])
def test_a_step_that_fails_ends_the_requests_that_took_part(step: int) -> None:
    setup = make(num_blocks=20, max_batch=2)
    made = [make_request(i, [i] * 9, SamplingParams(max_tokens=9)) for i in range(3)]
    calls = [Call([each], streams=True) for each in made]
    streams = [setup.loop.chunks(call) for call in calls]

    def fail(number: int) -> None:
        if number == step:
            setup.model.before_step = lambda number: None
            raise RuntimeError("the model failed")

    setup.model.before_step = fail
    for call in calls:
        setup.loop.submit(call)
    # Two at a time: the third one waits and takes no part.
    for stream in streams[:2]:
        with pytest.raises(RuntimeError, match="the model failed"):
            list(stream)
    assert [request.completion.finish_reason for request in made] == ["abort", "abort", None]
    assert [chunk.token_id for chunk in streams[2]] == expected_greedy([2] * 9, 9)
    assert setup.blocks.num_free == setup.blocks.num_blocks
    assert not setup.loop.calls


@pytest.mark.parametrize("step", [0, 1, 5])
def test_an_interrupt_of_the_model_ends_the_call_of_its_thread_alone(step: int) -> None:
    setup = make(num_blocks=20)
    other = Call([make_request(0, [1] * 9, SamplingParams(max_tokens=9))], streams=True)
    setup.loop.submit(other)

    def interrupt(number: int) -> None:
        if number == step:
            raise KeyboardInterrupt

    setup.model.before_step = interrupt
    request = make_request(1, [2] * 9, SamplingParams(max_tokens=9))
    with pytest.raises(KeyboardInterrupt):
        run(setup, [request])
    assert request.completion.finish_reason == "abort"
    setup.model.before_step = lambda number: None
    assert [chunk.token_id for chunk in setup.loop.chunks(other)] == expected_greedy([1] * 9, 9)
    assert setup.blocks.num_free == setup.blocks.num_blocks


def test_an_interrupt_of_the_bookkeeping_ends_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = make()
    other = Call([make_request(0, [1] * 9, SamplingParams(max_tokens=9))], streams=True)
    setup.loop.submit(other)

    def interrupt(*args: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Request, "append", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(setup, [make_request(1, [2] * 9, SamplingParams(max_tokens=9))])
    with pytest.raises(EngineError, match="was interrupted"):
        list(setup.loop.chunks(other))
    assert setup.blocks.num_free == setup.blocks.num_blocks
    (output,) = run(setup, [make_request(0, [3, 4], SamplingParams(max_tokens=4))])
    assert output.token_ids == expected_greedy([3, 4], 4)


def test_logits_without_a_maximum_end_their_request_alone() -> None:
    setup = make()
    forward = setup.model.forward

    def broken(step: Step) -> torch.Tensor:
        logits = forward(step)
        logits[0, 3] = float("nan")
        return logits

    setup.loop._forward = broken
    made = [make_request(i, [i, 5], SamplingParams(max_tokens=1)) for i in range(2)]
    calls = [Call([each], streams=False) for each in made]
    for call in calls:
        setup.loop.submit(call)
    with pytest.raises(EngineError, match="logits contain nan"):
        list(setup.loop.chunks(calls[0]))
    assert list(setup.loop.chunks(calls[1])) == []
    assert made[1].result.token_ids == expected_greedy([1, 5], 1)


def test_what_never_fits_is_an_error_not_a_hang() -> None:
    setup = make(num_blocks=16)
    held: list[int] = []
    assert setup.blocks.grow(held, 60)
    with pytest.raises(EngineError, match="does not fit into the 16 blocks"):
        run(setup, [make_request(0, [1] * 10, SamplingParams(max_tokens=5))])
    assert not setup.loop.calls


def test_a_stream_that_nobody_reads_is_waited_for_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 5)
    setup = make(num_blocks=16, block_size=4)
    unread = Call([make_request(0, [1] * 20, SamplingParams(max_tokens=40))], streams=True)
    stream = setup.loop.chunks(unread)
    tokens = [next(stream).token_id]
    # These take turns in all blocks, that of the unread stream included.
    outputs = run(setup, [make_request(n, [n] * 40, SamplingParams(max_tokens=20)) for n in (2, 3)])
    assert [output.token_ids for output in outputs] == [expected_greedy([n] * 40, 20) for n in (2, 3)]
    assert len(unread.chunks) == 5
    assert unread.requests[0].result.metrics.preemptions > 0
    tokens += [chunk.token_id for chunk in stream]
    assert tokens == expected_greedy([1] * 20, 40)
    assert setup.blocks.num_free == setup.blocks.num_blocks


def test_a_caller_may_leave_while_another_thread_runs_a_step() -> None:
    setup = make()
    in_step, may_go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        in_step.set()
        assert may_go_on.wait(60)

    setup.model.before_step = hold
    aborted = make_request(0, [1] * 9, SamplingParams(max_tokens=30))
    left = Call([aborted], streams=True)
    setup.loop.submit(left)
    request = make_request(1, [2] * 9, SamplingParams(max_tokens=5))
    thread = threading.Thread(target=run, args=(setup, [request]))
    thread.start()
    assert in_step.wait(60)
    setup.loop.leave(left)
    may_go_on.set()
    thread.join(60)
    assert request.result.token_ids == expected_greedy([2] * 9, 5)
    assert len(aborted) < 9 + 5
    assert setup.blocks.num_free == setup.blocks.num_blocks


def test_closing_ends_all_calls_and_those_of_other_threads() -> None:
    setup = make()
    in_step = threading.Event()
    setup.model.before_step = lambda number: in_step.set()
    errors: list[BaseException] = []

    def generate() -> None:
        try:
            while True:
                run(setup, [make_request(0, [1] * 9, SamplingParams(max_tokens=50))])
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=generate) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert in_step.wait(60)
    while len(errors) < 3:
        setup.loop.close(RuntimeError("closed"))
    for thread in threads:
        thread.join(60)
    assert setup.blocks.num_free == setup.blocks.num_blocks


@settings(max_examples=25, deadline=None)
@given(requests=prompts_and_lengths, seed=st.integers(0, 2**40), data=st.data())
def test_sampling_is_repeatable_whatever_else_is_in_the_batch(
    requests: list[tuple[list[int], int]], seed: int, data: st.DataObject
) -> None:
    params = [
        SamplingParams(
            temperature=data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])),
            top_p=data.draw(st.sampled_from([1.0, 0.8])),
            top_k=data.draw(st.sampled_from([0, 5])),
            repetition_penalty=data.draw(st.sampled_from([1.0, 1.3])),
            presence_penalty=data.draw(st.sampled_from([0.0, 1.5])),
            frequency_penalty=data.draw(st.sampled_from([0.0, -0.7])),
            logit_bias=data.draw(st.sampled_from([None, {5: 3.0}])),
            prompt_logprobs=data.draw(st.sampled_from([None, 1])),
            seed=seed,
            logprobs=data.draw(st.sampled_from([None, 3])),
            max_tokens=count,
        )
        for _, count in requests
    ]
    together = run(make(), [make_request(i, r[0], p) for i, (r, p) in enumerate(zip(requests, params, strict=True))])
    for output, (prompt, _), own in zip(together, requests, params, strict=True):
        (alone,) = run(make(), [make_request(0, prompt, own)])
        assert alone.token_ids == output.token_ids
        assert alone.outputs[0].logprobs == output.outputs[0].logprobs


SYSTEM = [7, 3, 9, 1] * 4


def computed(setup: Setup) -> int:
    """Returns how many tokens the model has computed since the last call."""
    count = sum(setup.model.tokens_per_step)
    setup.model.tokens_per_step.clear()
    return count


def test_what_the_cache_has_of_a_prompt_is_not_computed_again() -> None:
    setup = make(mixes=True)
    (first,) = run(setup, [make_request(0, [*SYSTEM, 5, 6], SamplingParams(max_tokens=4))])
    assert (first.num_cached_tokens, computed(setup)) == (0, 18 + 3)
    # The next turn of a conversation begins with prompt and answer.
    turn = [*SYSTEM, 5, 6, *first.token_ids, 8, 8]
    (second,) = run(setup, [make_request(0, turn, SamplingParams(max_tokens=4))])
    # 18 + 3 tokens are in the cache, 20 of them in full blocks of 4.
    assert (second.num_cached_tokens, computed(setup)) == (20, len(turn) - 20 + 3)
    assert second.token_ids == expected_greedy(turn, 4)
    # Of a prompt that is in the cache as a whole, the last token is computed: its logits are needed.
    (third,) = run(setup, [make_request(0, SYSTEM, SamplingParams(max_tokens=1))])
    assert (third.num_cached_tokens, computed(setup)) == (12, 4)
    assert third.token_ids == expected_greedy(SYSTEM, 1)


def test_requests_that_come_together_compute_what_they_share_once() -> None:
    setup = make(mixes=True)
    prompts = [[*SYSTEM, number] for number in range(5)]
    outputs = run(setup, [make_request(n, prompt, SamplingParams(max_tokens=1)) for n, prompt in enumerate(prompts)])
    assert [output.token_ids for output in outputs] == [expected_greedy(prompt, 1) for prompt in prompts]
    assert [output.num_cached_tokens for output in outputs] == [0, 16, 16, 16, 16]
    assert computed(setup) == 17 + 4


@pytest.mark.parametrize("options", [{"mixes": False}, {"mixes": True}], ids=["whole prompts", "mixed steps"])
def test_log_probabilities_of_a_prompt_need_all_of_it(options: dict[str, bool]) -> None:
    setup = make(**options)
    params = SamplingParams(max_tokens=3, prompt_logprobs=1)
    first, again = (run(setup, [make_request(0, SYSTEM, params)])[0] for _ in range(2))
    assert again.num_cached_tokens == 0
    assert again.prompt_logprobs == first.prompt_logprobs
    assert again.token_ids == first.token_ids == expected_greedy(SYSTEM, 3)


def test_without_mixed_steps_nothing_is_shared() -> None:
    setup = make(mixes=False)
    for _ in range(2):
        (output,) = run(setup, [make_request(0, SYSTEM, SamplingParams(max_tokens=2))])
        assert (output.num_cached_tokens, computed(setup)) == (0, 17)
        assert output.token_ids == expected_greedy(SYSTEM, 2)
    assert set(setup.model.phases) == {"prefill", "decode"}


def test_a_long_prompt_is_taken_in_chunks_while_others_go_on() -> None:
    setup = make(mixes=True, max_prefill=40, chunk_size=6)
    first = setup.loop.chunks(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=True))
    tokens = [next(first).token_id]
    long = make_request(1, [5] * 40, SamplingParams(max_tokens=2))
    setup.loop.submit(Call([long], streams=False))
    while not long.result.finished:
        tokens.append(next(first).token_id)
    # One token of the other one in each step, besides at most six of the prompt.
    assert setup.model.phases == ["prefill", *["mixed"] * 7, "decode"]
    assert setup.model.tokens_per_step == [2, *[7] * 6, 1 + 4, 2]
    assert long.result.token_ids == expected_greedy([5] * 40, 2)
    assert tokens + [chunk.token_id for chunk in first] == expected_greedy([1, 2], 30)


def test_who_waits_for_a_first_token_counts_as_much_as_who_waits_for_the_next() -> None:
    setup = make(mixes=True, max_prefill=40, chunk_size=3)
    stream = setup.loop.chunks(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=True))
    next(stream)
    others = [make_request(n, [n] * 10, SamplingParams(max_tokens=9)) for n in range(2, 4)]
    setup.loop.submit(Call(others, streams=True))
    next(stream)
    assert setup.model.tokens_per_step == [2, 1 + 2 * 3]
    # Callers that wait for results alone do not care when a token comes.
    setup = make(mixes=True, max_prefill=40, chunk_size=3)
    setup.loop.submit(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=False))
    next(setup.loop.chunks(Call([make_request(1, [2] * 40, SamplingParams(max_tokens=1))], streams=True)))
    assert setup.model.tokens_per_step == [40, 1 + 2]


def test_a_stream_does_not_hold_up_the_other_prompts_of_its_call() -> None:
    setup = make(mixes=True, max_prefill=10, chunk_size=3)
    chunks = setup.loop.chunks(
        Call([make_request(n, [n] * 10, SamplingParams(max_tokens=9)) for n in range(3)], streams=True)
    )
    for _ in chunks:
        pass
    assert setup.model.tokens_per_step[:4] == [10, 1 + 10, 2 + 10, 3]


def test_a_step_beside_a_stream_has_two_chunks_at_most() -> None:
    setup = make(mixes=True, max_prefill=40, chunk_size=3)
    stream = setup.loop.chunks(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=True))
    next(stream)
    setup.loop.submit(
        Call([make_request(n, [n] * 10, SamplingParams(max_tokens=9)) for n in range(2, 9)], streams=True)
    )
    next(stream)
    assert setup.model.tokens_per_step == [2, 1 + 2 * 3]


def test_a_step_has_time_to_read_what_is_before_a_chunk_or_does_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.runner.scheduler.tokens_of_reading", lambda context: 24 if context else 0)
    setup = make(mixes=True, max_prefill=40, chunk_size=6)
    stream = setup.loop.chunks(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=True))
    next(stream)
    setup.loop.submit(Call([make_request(1, [5] * 40, SamplingParams(max_tokens=1))], streams=True))
    next(stream)
    setup.loop.submit(Call([make_request(2, [6] * 4, SamplingParams(max_tokens=1))], streams=True))
    for _ in range(4):
        next(stream)
    # Beside the four tokens of the short prompt there is time for eight others, but not to read what is before them.
    assert setup.model.tokens_per_step[1:] == [1 + 6, 1 + 4, 1 + 6, 1 + 6, 1 + 6]


@pytest.mark.parametrize("decodes", [True, False])
def test_short_prompts_need_not_wait_for_the_end_of_a_long_one(decodes: bool) -> None:
    setup = make(mixes=True, max_prefill=6, chunk_size=6)
    if decodes:
        next(setup.loop.chunks(Call([make_request(0, [1, 2], SamplingParams(max_tokens=30))], streams=True)))
    long, longer = (make_request(n, [n] * length, SamplingParams(max_tokens=2)) for n, length in ((1, 40), (2, 50)))
    calls = [Call([each], streams=True) for each in (long, longer)]
    for call in calls:
        setup.loop.submit(call)
    others = setup.loop.chunks(Call([make_request(n, [n] * 9, SamplingParams(max_tokens=1)) for n in (3, 4)], True))
    places = [(long.num_computed, longer.num_computed) for _ in others]
    # The long one has every other step.
    assert places == [(2 * 6, 0), (3 * 6, 0)]
    for call, request, prompt in zip(calls, (long, longer), ([1] * 40, [2] * 50), strict=True):
        for _ in setup.loop.chunks(call):
            pass
        assert request.result.token_ids == expected_greedy(prompt, 2)


def test_a_prompt_that_is_alone_is_taken_in_chunks_for_those_that_may_come() -> None:
    setup = make(mixes=True, max_prefill=40, chunk_size=6)
    long = Call([make_request(1, [1] * 50, SamplingParams(max_tokens=1))], streams=True)
    shorts = {n: Call([make_request(n, [n] * n, SamplingParams(max_tokens=1))], streams=True) for n in (2, 3, 4)}
    # They come while the steps of these numbers run.
    setup.model.before_step = lambda step: setup.loop.submit(shorts[step]) if step in shorts else None
    for _ in setup.loop.chunks(long):
        pass
    # The long one adds no more to a step than those that pass it, which they do not in two steps in a row.
    assert setup.model.tokens_per_step == [6, 6, 6, 2 + 2, 6, 3 + 4 + 7, 6, 6, 5]
    assert all(call.is_over and call.error is None for call in shorts.values())
    # Where nobody waits for a first token, steps are as long as they may be.
    setup = make(mixes=True, max_prefill=40, chunk_size=6)
    assert [*setup.loop.chunks(Call([make_request(1, [1] * 50, SamplingParams(max_tokens=1))], streams=False))] == []
    assert setup.model.tokens_per_step == [40, 10]


def test_short_prompts_without_room_in_the_cache_take_nothing_from_a_long_one() -> None:
    setup = make(num_blocks=16, mixes=True, max_prefill=6)
    long = Call([make_request(1, [1] * 59, SamplingParams(max_tokens=2))], streams=True)
    setup.loop.submit(long)
    setup.loop.submit(Call([make_request(2, [2] * 9, SamplingParams(max_tokens=1))], streams=True))
    next(setup.loop.chunks(long))
    assert setup.model.tokens_per_step == [*[6] * 9, 5]


def test_without_mixed_steps_prompts_and_decoding_take_turns() -> None:
    setup = make(max_prefill=1)
    run(setup, [make_request(n, [n] * 9, SamplingParams(max_tokens=9)) for n in range(4)])
    assert setup.model.phases[:7] == ["prefill", "prefill", "decode", "prefill", "decode", "prefill", "decode"]


def test_a_request_whose_shared_blocks_are_needed_elsewhere_comes_back_with_the_same_tokens() -> None:
    setup = make(num_blocks=16, mixes=True)
    prompts = [[*SYSTEM, number] for number in range(4)]
    requests = [make_request(n, prompt, SamplingParams(max_tokens=40)) for n, prompt in enumerate(prompts)]
    outputs = run(setup, requests)
    assert sum(output.metrics.preemptions for output in outputs) > 0
    assert [output.token_ids for output in outputs] == [expected_greedy(prompt, 40) for prompt in prompts]
    assert setup.blocks.num_free == setup.blocks.num_blocks


@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=4), max_size=4),
    block_size=st.integers(1, 5),
    chunk_size=st.integers(1, 20),
    spare=st.integers(0, 30),
)
def test_prompts_with_common_beginnings_get_the_tokens_that_each_gets_alone(
    turns: list[list[tuple[int, int]]], block_size: int, chunk_size: int, spare: int
) -> None:
    setup = make(-(-MAX_LEN // block_size) + spare, block_size, mixes=True, chunk_size=chunk_size)
    for turn in turns:
        # They differ in their ends alone.
        cases = [([*[2] * length, number % 2], count) for number, (length, count) in enumerate(turn)]
        requests = [make_request(n, prompt, SamplingParams(max_tokens=c)) for n, (prompt, c) in enumerate(cases)]
        outputs = run(setup, requests)
        assert [output.token_ids for output in outputs] == [expected_greedy(*case) for case in cases]
        assert setup.blocks.num_free == setup.blocks.num_blocks
