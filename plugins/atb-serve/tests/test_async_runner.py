# SPDX-License-Identifier: Apache-2.0
"""Requests of tasks come and go, and nothing of them is left."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from runner.fake_model import VOCAB, expected_greedy
from runner.fake_runner import TOKENIZER, fake_runners

from atb_core import AsyncRunner, ModelRunner, SamplingParams
from atb_core.errors import QueueFullError, RequestError, RequestTimeoutError
from atb_core.runner.outputs import RequestOutput, StreamChunk
from atb_serve import async_runner
from atb_serve.engine import warm_up


@pytest.fixture(params=[True, False], ids=["mixed steps", "whole prompts"])
def open_runner(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., ModelRunner]:
    """Opens a runner on the fake model, which has mixed steps or not."""
    return fake_runners(monkeypatch, request.param)


CHAT = [{"role": "system", "content": "-"}]


def greedy(count: int) -> SamplingParams:
    return SamplingParams(max_tokens=count, ignore_eos=True)


async def result_of(chunks: AsyncGenerator[StreamChunk, None]) -> RequestOutput:
    """The output of a stream, whose chunks are checked against it."""
    texts: dict[int, str] = {}
    output = None
    async for chunk in chunks:
        assert output is None, "the chunk with the output is the last"
        texts[chunk.index] = texts.get(chunk.index, "") + chunk.text
        output = chunk.output
    assert output is not None
    assert [texts[completion.index] for completion in output.outputs] == [one.text for one in output.outputs]
    return output


def run(runner: ModelRunner, work: Callable[[AsyncRunner], Coroutine[Any, Any, None]], **options: Any) -> None:
    """Runs `work` on an AsyncRunner and checks that nothing is left of its requests."""

    async def main() -> None:
        served = AsyncRunner(runner, **options)
        await asyncio.wait_for(work(served), 60)
        await served.close()
        assert (served.num_running, served.num_waiting, served._streams) == (0, 0, {})
        assert not runner.engine_loop.calls

    asyncio.run(main())
    assert runner.num_free_blocks == runner.num_blocks
    assert not [thread for thread in threading.enumerate() if thread.name == "atb-engine"]


class Gate:
    """Holds the model's steps until it is opened."""

    def __init__(self, runner: ModelRunner) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        runner.model.fake.before_step = self._pass  # type: ignore[attr-defined]

    def _pass(self, step: int) -> None:
        self.reached.set()
        assert self.opened.wait(60)

    async def until_reached(self) -> None:
        await asyncio.to_thread(self.reached.wait, 60)


def test_tasks_share_batches_and_each_gets_what_it_gets_alone(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    async def work(served: AsyncRunner) -> None:
        prompts = [[n] * (n + 1) for n in range(9)]
        outputs = await asyncio.gather(*(result_of(served.generate(prompt, greedy(8))) for prompt in prompts))
        assert [output.token_ids for output in outputs] == [expected_greedy(prompt, 8) for prompt in prompts]
        assert [output.prompt_token_ids for output in outputs] == prompts

    run(runner, work)
    assert max(batch for _, batch in runner.model.fake.steps) > 1  # type: ignore[attr-defined]


def test_text_chats_ids_and_several_completions(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    several = SamplingParams(n=3, temperature=1.0, seed=5, max_tokens=6, ignore_eos=True)
    (expected,) = runner.generate([1, 2, 3], several)

    async def work(served: AsyncRunner) -> None:
        text = await result_of(served.generate("the", greedy(3), "mine"))
        assert (text.request_id, text.prompt) == ("mine", "the")
        chat = await result_of(served.chat(CHAT, greedy(3), add_generation_prompt=False))
        assert chat.prompt == "<|im_start|>system\n-<|im_end|>\n"
        ids = await result_of(served.generate({"prompt_token_ids": [1, 2, 3]}, several))
        assert ids.outputs == expected.outputs

    run(runner, work)


def test_bad_requests_are_refused(open_runner: Callable[..., ModelRunner]) -> None:
    async def work(served: AsyncRunner) -> None:
        for prompt, options, message in (
            ([[1], [2]], {}, "one prompt at a time, not 2"),
            ([VOCAB], {}, f"token id {VOCAB}"),
            ([1], {"timeout": 0}, "timeout must be a positive number"),
            ([1], {"request_id": 3}, "request_id must be a string"),
            ([1], {"token_mask": 3}, "token_mask must be a function"),
        ):
            with pytest.raises(RequestError, match=message):
                await result_of(served.generate(prompt, **options))  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="messages must be a chat"):
            served.chat("text")  # type: ignore[arg-type]

    run(open_runner(), work)


def test_leaving_cancelling_and_aborting_free_the_blocks(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    async def work(served: AsyncRunner) -> None:
        async with aclosing(served.generate([1] * 9, greedy(50))) as chunks:
            async for _ in chunks:
                break
        aborted = served.generate([2] * 9, greedy(50), "aborted")
        await anext(aborted)
        await served.abort("aborted")
        assert [chunk async for chunk in aborted if chunk.output is not None] == []
        await served.abort("unknown")
        gate = Gate(runner)
        task = asyncio.create_task(result_of(served.generate([3] * 9, greedy(50))))
        await gate.until_reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        assert (await result_of(served.generate([4] * 9, greedy(5)))).token_ids == expected_greedy([4] * 9, 5)

    run(runner, work)


def test_a_full_queue_refuses(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(max_num_seqs=1)

    async def work(served: AsyncRunner) -> None:
        gate = Gate(runner)
        first = asyncio.create_task(result_of(served.generate([1], greedy(3))))
        await gate.until_reached()
        others = [asyncio.create_task(result_of(served.generate([n], greedy(3)))) for n in (2, 3)]
        while served.num_waiting < 2:
            await asyncio.sleep(0)
        with pytest.raises(QueueFullError, match="2 requests wait"):
            await result_of(served.generate([4], greedy(3)))
        gate.opened.set()
        outputs = await asyncio.gather(first, *others)
        assert [output.token_ids for output in outputs] == [expected_greedy([n], 3) for n in (1, 2, 3)]

    run(runner, work, max_queue_len=2)


def test_a_request_ends_at_its_deadline(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    async def work(served: AsyncRunner) -> None:
        gate = Gate(runner)
        with pytest.raises(RequestTimeoutError):
            await result_of(served.generate([1], greedy(30), timeout=0.2))
        gate.opened.set()
        output = await result_of(served.generate([2], greedy(3), timeout=1000.0))
        assert output.token_ids == expected_greedy([2], 3)

    run(runner, work)


def test_a_failing_step_ends_its_requests_and_shows_in_the_health(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    def fail(step: int) -> None:
        raise RuntimeError("the model failed")

    async def work(served: AsyncRunner) -> None:
        await served.check_health()
        runner.model.fake.before_step = fail  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="the model failed"):
            await result_of(served.generate([1], greedy(3)))
        with pytest.raises(RuntimeError, match="the model failed"):
            await served.check_health()
        runner.model.fake.before_step = lambda step: None  # type: ignore[attr-defined]
        await served.check_health()
        assert (await result_of(served.generate([1], greedy(3)))).token_ids == expected_greedy([1], 3)

    run(runner, work)


def test_a_reader_that_is_behind_is_waited_for(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 4)
    runner = open_runner(num_blocks=16)

    async def work(served: AsyncRunner) -> None:
        slow = served.generate([1] * 9, greedy(40), "slow")
        tokens = [(await anext(slow)).token_id]
        outputs = await asyncio.gather(*(result_of(served.generate([n] * 40, greedy(20))) for n in (2, 3)))
        assert [output.token_ids for output in outputs] == [expected_greedy([n] * 40, 20) for n in (2, 3)]
        assert len(served._streams["slow"].call.chunks) == 4
        await served.check_health()
        tokens += [chunk.token_id async for chunk in slow]
        assert tokens == expected_greedy([1] * 9, 40)

    run(runner, work)


def test_threads_may_generate_meanwhile(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    async def work(served: AsyncRunner) -> None:
        calls = [asyncio.to_thread(runner.generate, [[n] * 9], greedy(20)) for n in range(3)]
        tasks = [result_of(served.generate([n] * 9, greedy(20))) for n in range(3, 9)]
        results = await asyncio.gather(*calls, *tasks)
        outputs = [result[0] if isinstance(result, list) else result for result in results]
        assert [output.token_ids for output in outputs] == [expected_greedy([n] * 9, 20) for n in range(9)]

    run(runner, work)


def test_closing_drains_and_then_ends_what_still_runs(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()

    async def work(served: AsyncRunner) -> None:
        task = asyncio.create_task(result_of(served.generate([1], greedy(20))))
        while not served.num_running and not task.done():
            await asyncio.sleep(0)
        await served.close(drain=60.0)
        assert (await task).token_ids == expected_greedy([1], 20)
        with pytest.raises(RequestError, match="was closed"):
            await result_of(served.generate([1], greedy(20)))
        other = AsyncRunner(runner)
        gate = Gate(runner)
        task = asyncio.create_task(result_of(other.generate([1], greedy(20))))
        await gate.until_reached()
        closing = asyncio.create_task(other.close())
        with pytest.raises(RequestError, match="This AsyncRunner was closed"):
            await task
        gate.opened.set()
        await closing

    run(runner, work)


def test_closing_the_model_ends_the_requests(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 4)
    runner = open_runner()

    async def main() -> None:
        served = AsyncRunner(runner)
        chunks = served.generate([1], greedy(60))
        await anext(chunks)
        await asyncio.to_thread(runner.close)
        with pytest.raises(RequestError, match="This ModelRunner was closed"):
            async for _ in chunks:
                pass
        await served.close()

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_of_requests_that_come_and_go_at_random(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 4)
    runner, chance = open_runner(num_blocks=18), random.Random(seed)
    ended: list[int] = []

    async def ask(served: AsyncRunner, number: int, end: str) -> None:
        prompt = [*[7, 3, 9, 1] * chance.randrange(8), number % 5]
        tokens: list[int] = []

        def on_end(output: RequestOutput, generated: int) -> None:
            ended.append(number)
            assert len(tokens) <= generated <= 20 and (generated == 20 or end in ("leave", "abort", "cancel"))

        chunks = served.generate(prompt, greedy(20), f"request {number}", on_end=on_end)
        async with aclosing(chunks):
            async for chunk in chunks:
                tokens.append(chunk.token_id)
                if end == "leave" and len(tokens) == 3:
                    break
                if end == "abort":
                    await served.abort(f"request {number}")
                if end == "read slowly":
                    await asyncio.sleep(0.001)
        assert tokens == expected_greedy(prompt, 20)[: len(tokens)]
        assert end in ("leave", "abort") or len(tokens) == 20

    async def work(served: AsyncRunner) -> None:
        ends = ["wait", "leave", "abort", "read slowly", "cancel"]
        tasks = {}
        for number in range(60):
            end = chance.choice(ends)
            task = asyncio.create_task(ask(served, number, end))
            tasks[task] = end
            if end == "cancel":
                asyncio.get_running_loop().call_later(chance.random() * 0.1, task.cancel)
            await asyncio.sleep(chance.random() * 0.002)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result, end in zip(results, tasks.values(), strict=True):
            assert result is None or (end == "cancel" and isinstance(result, asyncio.CancelledError))
        # One that was cancelled may not have become a request.
        assert len(ended) == len(set(ended))
        assert {number for number, end in enumerate(tasks.values()) if end != "cancel"} <= set(ended)

    run(runner, work)


def test_text_of_a_mask_is_what_it_allows(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    wanted = TOKENIZER.encode("the quick", add_special_tokens=False)

    class Mask:
        def __init__(self) -> None:
            self.taken: list[int] = []
            masks.append(self)

        def next_mask(self) -> Any:
            import numpy as np

            mask = np.zeros(VOCAB, dtype=np.bool_)
            mask[wanted[len(self.taken)]] = True
            return mask

        def accept(self, token_id: int) -> None:
            self.taken.append(token_id)

    masks: list[Mask] = []

    async def work(served: AsyncRunner) -> None:
        params = SamplingParams(n=2, temperature=1.0, max_tokens=len(wanted), ignore_eos=True)
        output = await result_of(served.generate([1, 2], params, token_mask=Mask))
        assert [completion.text for completion in output.outputs] == ["the quick"] * 2
        assert [mask.taken for mask in masks] == [wanted] * 2

    run(runner, work)
    (output,) = runner.generate([1, 2], greedy(len(wanted)), token_mask=Mask)
    assert output.token_ids == wanted


@pytest.mark.parametrize("bad", ["no token", "shape", "raises", "accept"])
def test_a_bad_mask_ends_its_request_alone(open_runner: Callable[..., ModelRunner], bad: str) -> None:
    runner = open_runner()

    class Mask:
        def next_mask(self) -> Any:
            import torch

            if bad == "raises":
                raise ValueError("no grammar")
            return None if bad == "accept" else torch.zeros(VOCAB + (bad == "shape"), dtype=torch.bool)

        def accept(self, token_id: int) -> None:
            raise ValueError("no grammar")

    message = {"no token": "leaves no token", "shape": f"must be bool \\[{VOCAB}\\]"}.get(bad, "no grammar")

    async def work(served: AsyncRunner) -> None:
        good = asyncio.create_task(result_of(served.generate([2], greedy(9))))
        with pytest.raises((RequestError, ValueError), match=message):
            await result_of(served.generate([1], greedy(9), token_mask=Mask))
        assert (await good).token_ids == expected_greedy([2], 9)

    run(runner, work)


def test_steps_of_each_kind_have_been_taken_before_the_first_request(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    warm_up(runner)
    mixes = runner.model.mixed_steps_problem(16) is None
    assert set(runner.model.fake.phases) == {"prefill", "decode", *(["mixed"] if mixes else [])}  # type: ignore[attr-defined]
    assert runner.num_free_blocks == runner.num_blocks


def test_steps_of_an_engine_with_all_processors_wait_until_the_tokens_before_are_taken(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_runner, "_has_all_processors", lambda runner: True)
    monkeypatch.setattr(async_runner, "_PATIENCE", 60.0)
    taken, seen = 0, []
    with open_runner() as runner:
        forward = runner.engine_loop._forward
        monkeypatch.setattr(runner.engine_loop, "_forward", lambda step: (seen.append(taken), forward(step))[1])

        async def work(served: AsyncRunner) -> None:
            nonlocal taken
            async for _ in served.generate([1, 2], greedy(8)):
                taken += 1

        run(runner, work)
    assert seen[:8] == list(range(8))


def test_requests_that_come_together_begin_in_one_step(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_runner, "_PATIENCE", 60.0)
    is_first_there, sizes = threading.Event(), []
    with open_runner() as runner:
        loop, make = runner.engine_loop, runner._make_requests
        forward = loop._forward
        monkeypatch.setattr(
            loop, "_forward", lambda step: (sizes.append(len(loop.scheduler.running)), forward(step))[1]
        )

        def make_slowly(prompts: list[Any], *rest: Any) -> list[Any]:
            if prompts != [[1, 2]]:
                assert is_first_there.wait(60)
                time.sleep(0.05)  # in which the first one would begin alone
            return make(prompts, *rest)

        monkeypatch.setattr(runner, "_make_requests", make_slowly)

        async def work(served: AsyncRunner) -> None:
            tasks = [asyncio.create_task(result_of(served.generate(prompt, greedy(3)))) for prompt in ([1, 2], [3, 4])]
            while not served._streams:
                await asyncio.sleep(0.001)
            is_first_there.set()
            await asyncio.gather(*tasks)

        run(runner, work)
    assert sizes[0] == 2
