# SPDX-License-Identifier: Apache-2.0
"""The runner's promises, on a model that shows every wrong slot or block as a wrong token."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from runner.fake_model import VOCAB, expected_greedy
from runner.fake_runner import CONTEXT, TOKENIZER
from runner.tiny_tokenizers import byte_fallback

from atb_core import ModelRunner, RequestOutput, SamplingParams
from atb_core.checkpoint import TokenizerParts
from atb_core.errors import BackendUnavailableError, ConfigError, RequestError
from atb_core.runner.outputs import StreamChunk
from atb_core.runner.prompts import PromptEncoder
from atb_core.runner.request import RequestFactory
from atb_core.runner.tokenizer import Tokenizer


def test_what_it_publishes(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    assert (runner.num_layers, runner.num_heads, runner.num_kv_heads, runner.head_size) == (1, 2, 1, 2)
    assert (runner.dtype, runner.max_model_len, runner.vocab_size) == (torch.float32, CONTEXT, VOCAB)
    assert (runner.block_size, runner.num_blocks) == (4, CONTEXT // 4 * 4)
    assert runner.config.model_type == "fake"
    assert runner.tokenizer is TOKENIZER


def test_prompts_of_different_lengths_together(open_runner: Callable[..., ModelRunner]) -> None:
    prompts = [[n] * (n + 1) for n in range(9)]
    outputs = open_runner().generate(prompts, SamplingParams(max_tokens=8, ignore_eos=True))
    for prompt, output in zip(prompts, outputs, strict=True):
        assert output.prompt_token_ids == prompt
        assert output.token_ids == expected_greedy(prompt, 8)
        assert output.text == TOKENIZER.decode(output.token_ids)
        assert output.outputs[0].finish_reason == "length"
        assert output.metrics.total_time >= output.metrics.time_to_first_token > 0


def test_text_ids_and_chats_in_one_call_each_with_its_parameters(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(max_model_len=60)
    params = [SamplingParams(max_tokens=n) for n in (1, 2, 3)]
    text, ids, chat = runner.generate([".", [1, 2], [{"role": "system", "content": "-"}]], params)
    assert text.prompt == "."
    assert ids.prompt is None
    assert chat.prompt == "<|im_start|>system\n-<|im_end|>\n<|im_start|>assistant\n"
    for count, output in zip((1, 2, 3), (text, ids, chat), strict=True):
        assert output.token_ids == expected_greedy(output.prompt_token_ids, count)


def test_one_prompt_gives_a_list_of_one_and_none_an_empty_one(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    (output,) = runner.generate([1, 2, 3], SamplingParams(max_tokens=2))
    assert isinstance(output, RequestOutput)
    assert runner.generate([]) == []


def test_a_stream_adds_up_to_the_output(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    prompts = [[5] * 10, [6], [7] * 3]
    params = SamplingParams(max_tokens=12, ignore_eos=True, logprobs=2)
    whole = runner.generate(prompts, params)
    chunks = list(runner.generate(prompts, params, stream=True))
    assert all(isinstance(chunk, StreamChunk) for chunk in chunks)
    for index, output in enumerate(whole):
        own = [chunk for chunk in chunks if chunk.prompt_index == index]
        assert "".join(chunk.text for chunk in own) == output.text
        assert [chunk.token_id for chunk in own] == output.token_ids
        assert [chunk.logprobs for chunk in own] == output.outputs[0].logprobs
        assert [chunk.finish_reason for chunk in own] == [None] * 11 + ["length"]
        final = own[-1].output
        assert final is not None
        assert (final.text, final.token_ids) == (output.text, output.token_ids)


def test_a_stop_string_across_tokens_ends_text_and_stream(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    (free,) = runner.generate([3, 4], SamplingParams(max_tokens=30, ignore_eos=True))
    pieces = [TOKENIZER.decode([token]) for token in free.token_ids]
    readable = [bool(piece) and piece.isascii() for piece in pieces]
    first = next(i for i in range(3, 29) if readable[i] and readable[i + 1])
    stop = pieces[first][-1] + pieces[first + 1][0]
    params = SamplingParams(max_tokens=30, ignore_eos=True, stop=stop)
    (output,) = runner.generate([3, 4], params)
    assert output.text == free.text[: free.text.index(stop)]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)
    assert "".join(chunk.text for chunk in runner.generate([3, 4], params, stream=True)) == output.text


def test_the_models_end_token_ends_the_text_unless_ignored(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner()
    end = expected_greedy([9], 20)[5]
    monkeypatch.setattr(ModelRunner, "eos_token_ids", frozenset({end}))
    (output,) = runner.generate([9], SamplingParams(max_tokens=20))
    expected = expected_greedy([9], 20)
    assert output.token_ids == expected[: expected.index(end) + 1]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", end)
    assert output.text == TOKENIZER.decode(output.token_ids[:-1])
    (output,) = runner.generate([9], SamplingParams(max_tokens=20, ignore_eos=True))
    assert output.token_ids == expected
    (output,) = runner.generate([9], SamplingParams(max_tokens=20, ignore_eos=True, stop_token_ids=[expected[2]]))
    assert output.token_ids == expected[: expected.index(expected[2]) + 1]


def test_max_tokens_is_cut_to_the_context(open_runner: Callable[..., ModelRunner]) -> None:
    for count in (1000, None):
        (output,) = open_runner(max_model_len=20).generate([1] * 15, SamplingParams(max_tokens=count, ignore_eos=True))
        assert len(output.token_ids) == 5
        assert output.outputs[0].finish_reason == "length"


def test_without_a_tokenizer(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(load_tokenizer=False)
    assert runner.tokenizer is None
    assert runner.eos_token_ids == {VOCAB - 1}
    (output,) = runner.generate([1, 2], SamplingParams(max_tokens=4, ignore_eos=True))
    assert output.text == ""
    assert output.token_ids == expected_greedy([1, 2], 4)
    with pytest.raises(RequestError, match="without a tokenizer"):
        runner.generate("text")
    with pytest.raises(RequestError, match="Stop strings need a tokenizer"):
        runner.generate([1], SamplingParams(stop="x"))


@pytest.mark.parametrize(
    ("prompts", "sampling_params", "message"),
    [
        ([[1], [VOCAB]], None, f"Prompt 1 has the token id {VOCAB}"),
        ([[1], []], None, "Prompt 1 is empty"),
        ([[1] * 64], None, "The prompt has 64 tokens; the context holds 64"),
        ([[1]], {"temperature": 1}, "sampling_params must be SamplingParams"),
        ([[1]], [SamplingParams()] * 2, "sampling_params has 2 entries for 1 prompts"),
    ],
)
def test_a_bad_request_is_refused_before_anything_runs(
    open_runner: Callable[..., ModelRunner], prompts: Any, sampling_params: Any, message: str
) -> None:
    runner = open_runner()
    for stream in (False, True):
        with pytest.raises(RequestError, match=message):
            runner.generate(prompts, sampling_params, stream=stream)
    assert runner.model.fake.steps == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"world_size": 2, "graph": "cpp"}, BackendUnavailableError, "no divided models"),
        ({"world_size": 2, "tensor_parallel_size": 3}, RequestError, "tensor_parallel_size=3 and world_size=2"),
        ({"rank": 1}, RequestError, "rank=1 and world_size=1"),
        ({"world_size": 0}, RequestError, "do not go together"),
        ({"graph": "cpp", "backend": "reference"}, BackendUnavailableError, "backend='reference' interprets"),
        ({"graph": "rust"}, RequestError, "graph must be"),
        ({"backend": "atb"}, BackendUnavailableError, "Ascend"),
        ({"backend": "cuda"}, BackendUnavailableError, "no installed plugin offers the backend 'cuda'"),
        ({"dtype": "int4"}, RequestError, "dtype must be"),
        ({"block_size": 0}, RequestError, "block_size must be a positive integer"),
        ({"max_num_seqs": -1}, RequestError, "max_num_seqs must be"),
        ({"num_threads": 1.5}, RequestError, "num_threads must be"),
        ({"max_model_len": 65}, RequestError, "max_model_len=65 is more than the 64 tokens"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    open_runner: Callable[..., ModelRunner], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_runner(**options)


def test_a_stream_that_is_left_frees_its_blocks(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    stream = runner.generate([[1] * 20, [2] * 20], SamplingParams(max_tokens=20), stream=True)
    list(itertools.islice(stream, 5))
    assert runner.num_free_blocks < runner.num_blocks
    stream.close()  # type: ignore[attr-defined]
    assert runner.num_free_blocks == runner.num_blocks


def test_streams_may_be_read_in_turn(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    params = SamplingParams(max_tokens=10, ignore_eos=True)
    streams = [runner.generate([n] * 7, params, stream=True) for n in range(3)]
    tokens: list[list[int]] = [[], [], []]
    for _ in range(10):
        for own, stream in zip(tokens, streams, strict=True):
            own.append(next(stream).token_id)
    assert tokens == [expected_greedy([n] * 7, 10) for n in range(3)]
    for stream in streams:
        assert list(stream) == []
    assert runner.num_free_blocks == runner.num_blocks


def test_threads_may_generate_at_the_same_time(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        (output,) = runner.generate([number] * 9, SamplingParams(max_tokens=12, ignore_eos=True))
        results[number] = output.token_ids

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: expected_greedy([number] * 9, 12) for number in range(4)}
    assert runner.num_free_blocks == runner.num_blocks


@pytest.mark.parametrize("num_blocks", [16, 17, 20])
def test_calls_of_many_threads_wait_for_blocks(open_runner: Callable[..., ModelRunner], num_blocks: int) -> None:
    runner = open_runner(num_blocks=num_blocks)
    params = SamplingParams(max_tokens=20, ignore_eos=True)

    def work(number: int) -> bool:
        outputs = runner.generate([[number % VOCAB] * (number + 1), [3] * number], params)
        tokens = [output.token_ids for output in outputs]
        return tokens == [expected_greedy([number % VOCAB] * (number + 1), 20), expected_greedy([3] * number, 20)]

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(work, range(1, 33), timeout=60))
    assert runner.num_free_blocks == runner.num_blocks


def test_a_call_does_not_wait_for_a_stream_that_nobody_reads(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atb_core.runner.request.MAX_UNREAD_CHUNKS", 3)
    runner = open_runner(num_blocks=16)
    stream = runner.generate([[1] * 20], SamplingParams(max_tokens=40, ignore_eos=True), stream=True)
    tokens = [next(stream).token_id]
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(runner.generate, [[n] * 50], SamplingParams(max_tokens=5)) for n in (2, 3)]
        assert [call.result(60)[0].token_ids for call in calls] == [expected_greedy([n] * 50, 5) for n in (2, 3)]
    tokens += [chunk.token_id for chunk in stream]
    assert tokens == expected_greedy([1] * 20, 40)


def test_calls_that_wait_end_when_the_runner_is_closed(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(num_blocks=16)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(runner.generate, [[n] * 20], params) for n in range(8)]
        while not any(call.running() for call in calls):
            pass
        runner.close()
        for call in calls:
            assert call.exception(60) is None or "was closed" in str(call.exception())


def test_an_error_of_the_model_ends_the_streams_that_took_part(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    params = SamplingParams(max_tokens=10, ignore_eos=True)
    streams = [runner.generate([n] * 7, params, stream=True) for n in (1, 2)]
    for stream in streams:
        next(stream)

    def fail(step: int) -> None:
        raise RuntimeError("the model failed")

    runner.model.fake.before_step = fail
    for stream in streams:
        with pytest.raises(RuntimeError, match="the model failed"):
            list(stream)
    runner.model.fake.before_step = lambda step: None
    assert runner.num_free_blocks == runner.num_blocks
    (output,) = runner.generate([3] * 7, params)
    assert output.token_ids == expected_greedy([3] * 7, 10)


def test_an_interrupt_at_any_moment_leaves_the_runner_usable(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(num_blocks=20)
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    prompts = [[n] * 8 for n in range(5)]

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for attempt in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0007 * (attempt + 1))
                try:
                    runner.generate(prompts, params)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            assert runner.num_free_blocks == runner.num_blocks
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 0
    outputs = runner.generate(prompts, params)
    assert [output.token_ids for output in outputs] == [expected_greedy(prompt, 20) for prompt in prompts]


def test_the_low_level_step_is_the_models(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    cache = runner.allocate_kv_cache(6)
    i32 = torch.int32
    logits = runner.forward(
        input_ids=torch.tensor([11, 12, 13]),
        position_ids=torch.tensor([0, 1, 2]),
        is_prefill=True,
        kv_cache=cache,
        block_tables=torch.tensor([[3]], dtype=i32),
        slots=torch.tensor([12, 13, 14], dtype=i32),
        input_lengths=torch.tensor([3], dtype=i32),
        max_seq_len=3,
        lm_head_indices=torch.tensor([2]),
    )
    first = int(logits.argmax())
    logits = runner.forward(
        input_ids=torch.tensor([first]),
        position_ids=torch.tensor([3]),
        is_prefill=False,
        kv_cache=cache,
        block_tables=torch.tensor([[3]], dtype=i32),
        slots=torch.tensor([15], dtype=i32),
        input_lengths=torch.tensor([4], dtype=i32),
        max_seq_len=4,
    )
    assert [first, int(logits.argmax())] == expected_greedy([11, 12, 13], 2)


def test_without_parameters_the_generation_config_counts(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    assert runner.get_default_sampling_params() == SamplingParams(max_tokens=7)
    (output,) = runner.generate([3, 4])
    assert output.token_ids == expected_greedy([3, 4], 7)
    (output,) = runner.generate([3, 4], SamplingParams(ignore_eos=True))
    assert len(output.token_ids) == CONTEXT - 2
    assert open_runner(generation_config="none").get_default_sampling_params() == SamplingParams()


def test_a_generation_config_of_ones_own(open_runner: Callable[..., ModelRunner], tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "top_k": 3}')
    runner = open_runner(generation_config=tmp_path)
    assert runner.get_default_sampling_params() == SamplingParams(temperature=1.0, top_k=3)
    (tmp_path / "generation_config.json").write_text('{"num_beams": 3}')
    with pytest.raises(ConfigError, match="num_beams=3"):
        open_runner(generation_config=tmp_path)


def test_several_completions_of_a_prompt_are_those_of_following_seeds(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(num_blocks=20)
    params = SamplingParams(n=3, temperature=1.0, seed=5, max_tokens=12, ignore_eos=True, logprobs=1)
    several, other = runner.generate([[1, 2, 3], [4] * 9], params)
    assert [completion.index for completion in several.outputs] == [0, 1, 2]
    assert several.finished
    for number, completion in enumerate(several.outputs):
        single = dataclasses.replace(params, n=1, seed=5 + number)
        (alone,) = runner.generate([1, 2, 3], single)
        assert alone.outputs == [dataclasses.replace(completion, index=0)]
    assert len({tuple(completion.token_ids) for completion in several.outputs}) == 3
    assert (several.text, several.token_ids) == (several.outputs[0].text, several.outputs[0].token_ids)
    assert int(other.request_id) == int(several.request_id) + 1
    assert runner.num_free_blocks == runner.num_blocks


def test_a_stream_of_several_completions_gives_the_output_once(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    params = SamplingParams(n=2, temperature=1.0, seed=5, max_tokens=6, ignore_eos=True)
    (whole,) = runner.generate([1, 2, 3], params)
    chunks = list(runner.generate([1, 2, 3], params, stream=True))
    for completion in whole.outputs:
        own = [chunk for chunk in chunks if chunk.index == completion.index]
        assert [chunk.token_id for chunk in own] == completion.token_ids
        assert "".join(chunk.text for chunk in own) == completion.text
        assert own[-1].finish_reason == "length"
    (final,) = [chunk.output for chunk in chunks if chunk.output is not None]
    assert final.outputs == whole.outputs
    assert chunks[-1].output is final


def test_end_tokens_wait_for_the_least_length(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner()
    free = expected_greedy([9], 20)
    monkeypatch.setattr(ModelRunner, "eos_token_ids", frozenset({free[0]}))
    (early,) = runner.generate([9], SamplingParams(max_tokens=20))
    assert early.token_ids == free[:1]
    (late,) = runner.generate([9], SamplingParams(max_tokens=20, min_tokens=4))
    assert free[0] not in late.token_ids[:4]
    assert len(late.token_ids) >= 4


def test_stop_strings_wait_for_the_least_length(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    (free,) = runner.generate([3, 4], SamplingParams(max_tokens=30, ignore_eos=True))
    pieces = [TOKENIZER.decode([token]) for token in free.token_ids]
    first = next(i for i, piece in enumerate(pieces) if piece.isascii() and piece)
    params = SamplingParams(max_tokens=30, ignore_eos=True, stop=pieces[first])
    assert len(runner.generate([3, 4], params)[0].token_ids) == first + 1
    (later,) = runner.generate([3, 4], dataclasses.replace(params, min_tokens=first + 1))
    assert later.text.startswith(TOKENIZER.decode(free.token_ids[: first + 1]))


def test_special_tokens_stay_in_the_text_if_asked(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    special = TOKENIZER.backend.token_to_id("<|im_end|>")
    params = SamplingParams(max_tokens=2, ignore_eos=True, logit_bias={special: 100.0})
    assert runner.generate([3, 4], params)[0].text == ""
    kept = dataclasses.replace(params, skip_special_tokens=False)
    assert runner.generate([3, 4], kept)[0].text == "<|im_end|><|im_end|>"


def test_logprobs_have_the_text_of_their_tokens(open_runner: Callable[..., ModelRunner]) -> None:
    (output,) = open_runner().generate([3, 4], SamplingParams(max_tokens=3, logprobs=2, prompt_logprobs=1))
    (completion,) = output.outputs
    assert completion.logprobs is not None and completion.cumulative_logprob is not None
    chosen = [step[token] for step, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    assert sum(entry.logprob for entry in chosen) == pytest.approx(completion.cumulative_logprob)
    assert [entry.decoded_token for entry in chosen] == [TOKENIZER.decode([token]) for token in completion.token_ids]
    assert output.prompt_logprobs is not None
    first, second = output.prompt_logprobs
    assert first is None
    assert second is not None
    assert second[4].decoded_token == TOKENIZER.decode([4])


def test_logprobs_have_the_space_before_a_word(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner()
    words = byte_fallback()
    runner.tokenizer = Tokenizer(TokenizerParts(words))
    the, byte = (words.token_to_id(token) for token in ("▁the", "<0xE4>"))
    factory = RequestFactory(PromptEncoder(runner.tokenizer, 9999, CONTEXT), frozenset())
    assert [factory._decode_token(token) for token in (the, byte, 2)] == [" the", "\ufffd", "</s>"]


def test_prompt_logprobs_change_nothing_else(
    open_runner: Callable[..., ModelRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = open_runner(num_blocks=20)
    prompts = [[n] * (3 * n + 1) for n in range(5)]
    params = SamplingParams(max_tokens=9, ignore_eos=True, prompt_logprobs=2)
    whole = runner.generate(prompts, params)
    assert max(runner.model.fake.rows_per_step) == 13
    # Room for the logits of two positions: longer prompts run once for each two.
    monkeypatch.setattr("atb_core.runner.engine_loop._LOGITS_BYTES", 2 * 4 * VOCAB)
    runner.model.fake.rows_per_step.clear()
    in_parts = runner.generate(prompts, params)
    assert max(runner.model.fake.rows_per_step) == 2
    for one, other, prompt in zip(whole, in_parts, prompts, strict=True):
        assert one.prompt_logprobs == other.prompt_logprobs
        assert one.token_ids == other.token_ids == expected_greedy(prompt, 9)
        assert one.prompt_logprobs is not None
        assert len(one.prompt_logprobs) == len(prompt)
    assert runner.num_free_blocks == runner.num_blocks


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (SamplingParams(logit_bias={VOCAB: 1.0}), f"logit_bias has the token id {VOCAB}"),
        (SamplingParams(stop_token_ids=[VOCAB]), f"stop_token_ids has the token id {VOCAB}"),
        (SamplingParams(stop_token_ids=range(VOCAB), min_tokens=1), "min_tokens leaves no token to choose"),
    ],
)
def test_token_ids_outside_the_vocabulary_are_refused(
    open_runner: Callable[..., ModelRunner], params: SamplingParams, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        open_runner().generate([1], params)


def test_chats(open_runner: Callable[..., ModelRunner]) -> None:
    runner = open_runner(max_model_len=60)
    chat = [{"role": "system", "content": "-"}]
    params = SamplingParams(max_tokens=3)
    (answer,) = runner.chat(chat, params)
    assert answer.prompt == "<|im_start|>system\n-<|im_end|>\n<|im_start|>assistant\n"
    assert [output.token_ids for output in runner.chat([chat, chat], params)] == [answer.token_ids] * 2
    assert [chunk.token_id for chunk in runner.chat(chat, params, stream=True)] == answer.token_ids
    (open_ended,) = runner.chat(chat, params, add_generation_prompt=False)
    assert open_ended.prompt == "<|im_start|>system\n-<|im_end|>\n"
    for wrong in ("text", [1, 2], ["a"], {"role": "user", "content": "x"}):
        with pytest.raises(RequestError):
            runner.chat(wrong)  # type: ignore[arg-type]


def test_a_closed_runner_refuses_to_run_and_may_be_closed_again(open_runner: Callable[..., ModelRunner]) -> None:
    with open_runner() as runner:
        stream = runner.generate([1, 2], SamplingParams(max_tokens=20, ignore_eos=True), stream=True)
        next(stream)
    assert runner.kv_cache == []
    with pytest.raises(RequestError, match="was closed"):
        list(stream)
    for call in (
        lambda: runner.generate([1, 2]),
        lambda: runner.generate([1, 2], stream=True),
        lambda: runner.chat([{"role": "user", "content": "x"}]),
        lambda: runner.allocate_kv_cache(1),
        lambda: runner.model,
    ):
        with pytest.raises(RequestError, match="This ModelRunner was closed"):
            call()
    runner.close()
    assert runner.config.model_type == "fake"
    assert "closed" in repr(runner)


def test_a_runner_is_freed_when_nobody_refers_to_it_but_not_before_its_stream(
    open_runner: Callable[..., ModelRunner],
) -> None:
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    runner = open_runner()
    runner.generate([1, 2], params)
    cache, freed = weakref.ref(runner.kv_cache[0][0]), weakref.ref(runner)
    gc.disable()
    try:
        stream = runner.generate([1, 2], params, stream=True)
        del runner
        assert [chunk.token_id for chunk in stream] == expected_greedy([1, 2], 5)
        del stream
        assert (freed(), cache()) == (None, None)
    finally:
        gc.enable()


def test_rank_and_world_size_are_keywords(open_runner: Callable[..., ModelRunner]) -> None:
    with pytest.raises(TypeError, match="positional"):
        ModelRunner("fake", 0, 1)  # type: ignore[misc]
