# SPDX-License-Identifier: Apache-2.0
"""`/v1/completions` gives OpenAI's client what the runner gives, in OpenAI's form."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from atb_core import SamplingParams
from atb_serve import replies
from atb_serve.replies import TextChoice, TextCompletion, TextEvents


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="[greet]")
    assert answer.choices[0].text == "Hello there, you."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1, 5)


def test_the_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="[count]")
    assert answer.choices[0].text == "".join(f"{number} " for number in range(16))
    assert answer.choices[0].finish_reason == "length"


LONG = "x" * 470 + "[count]"
LONG_CHAT = {"messages": [{"role": "user", "content": LONG}]}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("completions", {"prompt": LONG, "max_tokens": 32_000}, '"finish_reason":"length"'),
        ("chat/completions", {**LONG_CHAT, "max_tokens": 32_000}, '"finish_reason":"length"'),
        ("chat/completions", {**LONG_CHAT, "max_completion_tokens": 32_000}, '"finish_reason":"length"'),
        ("responses", {"input": LONG, "max_output_tokens": 32_000}, '"status":"incomplete"'),
    ],
)
def test_more_tokens_than_the_context_has_room_for_are_an_upper_bound(
    http: httpx.Client, path: str, body: dict[str, Any], end: str, stream: bool
) -> None:
    answer = http.post(f"/v1/{path}", json={**body, "stream": stream})
    assert answer.status_code == 200
    assert end in answer.text


def test_more_tokens_than_there_is_room_for_cannot_be_the_least(http: httpx.Client) -> None:
    body = {"prompt": "x" * 500, "max_tokens": 32_000}
    assert http.post("/v1/completions", json={**body, "min_tokens": 12}).status_code == 200
    answer = http.post("/v1/completions", json={**body, "min_tokens": 13})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "min_tokens")


def test_token_ids_and_lists_of_both_kinds_are_prompts(client: openai.OpenAI, served: Any) -> None:
    ids = served.runner.tokenizer.encode("[greet]")
    for prompt in (ids, [ids], ["[greet]"]):
        assert client.completions.create(model="tiny", prompt=prompt).choices[0].text == "Hello there, you."
    answer = client.completions.create(model="tiny", prompt=["[greet]", "[count]"], max_tokens=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "Hello there"), (1, "0 1 ")]


def test_a_stream_has_the_text_of_the_whole_answer_and_the_usage_at_its_end(client: openai.OpenAI) -> None:
    events = list(
        client.completions.create(
            model="tiny",
            prompt=["[greet]", "[count]"],
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = {0: "", 1: ""}
    for event in events[:-1]:
        assert event.usage is None
        texts[event.choices[0].index] += event.choices[0].text
    assert texts == {0: "Hello there, you", 1: "0 1 2 "}
    assert events[-1].choices == []
    assert events[-1].usage is not None and events[-1].usage.completion_tokens == 6


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_a_stream_may_have_the_usage_so_far(http: httpx.Client, path: str) -> None:
    prompt = {"messages": [{"role": "user", "content": "[count]"}]} if "chat" in path else {"prompt": "[count]"}
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {**prompt, "max_tokens": 3, "stream": True, "stream_options": options}
    lines = http.post(f"/v1/{path}", json=body).text.splitlines()
    usages = [json.loads(line[6:])["usage"] for line in lines if line.startswith("data: {")]
    numbers = [usage["completion_tokens"] for usage in usages]
    assert numbers == sorted(numbers) and set(numbers) == {1, 2, 3}
    assert all(usage["total_tokens"] - usage["completion_tokens"] == usage["prompt_tokens"] for usage in usages)
    assert {usage["prompt_tokens"] for usage in usages} == {usages[-1]["prompt_tokens"]}


@pytest.mark.parametrize("text", ["a", 'quote " and \\', "\n\x00\u2028", "\ud55c\U0001f600", "<mark>&"])
def test_an_event_made_from_its_text_alone_is_the_one_of_the_whole_body(text: str) -> None:
    def body(text: str) -> TextCompletion:
        return TextCompletion('"id', 1, "model\n", [TextChoice(3, text)], usage=None)

    assert TextEvents(body)(text) == replies.event(body(text))


def test_echo_puts_the_prompt_before_the_answer(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="say [greet]", echo=True)
    assert answer.choices[0].text == "say [greet]Hello there, you."
    events = client.completions.create(model="tiny", prompt="say [greet]", echo=True, stream=True)
    assert "".join(event.choices[0].text for event in events) == "say [greet]Hello there, you."


def test_log_probabilities_are_those_of_the_runner_with_their_places_in_the_text(
    client: openai.OpenAI, served: Any
) -> None:
    answer = client.completions.create(model="tiny", prompt="[greet]", max_tokens=2, logprobs=2, echo=True)
    found = answer.choices[0].logprobs
    params = SamplingParams(max_tokens=2, logprobs=2, prompt_logprobs=2)
    [expected] = served.runner.generate("[greet]", params)
    tokens = expected.outputs[0].logprobs
    assert found is not None and tokens is not None
    assert found.tokens == ["[greet]", "Hello", " there"]
    assert found.text_offset == [0, 7, 12]
    assert found.token_logprobs is not None and found.top_logprobs is not None
    assert found.token_logprobs[0] is None
    assert found.token_logprobs[1:] == [step[id_].logprob for step, id_ in zip(tokens, expected.token_ids, strict=True)]
    assert [len(step) for step in found.top_logprobs[1:]] == [2, 2]


def test_log_probabilities_of_a_prompt_alone_need_no_answer(client: openai.OpenAI, served: Any) -> None:
    answer = client.completions.create(model="tiny", prompt="[greet]Hello", max_tokens=0, logprobs=0, echo=True)
    assert answer.choices[0].text == "[greet]Hello"
    [expected] = served.runner.generate("[greet]Hello", SamplingParams(max_tokens=1, prompt_logprobs=0))
    [_, second] = expected.prompt_logprobs
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs == [None, next(iter(second.values())).logprob]
    assert answer.usage is not None and (answer.usage.completion_tokens, answer.usage.total_tokens) == (0, 2)


def test_several_completions_of_a_prompt_are_those_of_their_seeds(client: openai.OpenAI, served: Any) -> None:
    options: dict[str, Any] = {"prompt": "x", "max_tokens": 8, "temperature": 5.0, "seed": 3, "n": 3}
    answer = client.completions.create(model="tiny", **options)
    [expected] = served.runner.generate("x", SamplingParams(n=3, seed=3, temperature=5.0, max_tokens=8))
    assert [choice.text for choice in answer.choices] == [each.text for each in expected.outputs]
    assert len({choice.text for choice in answer.choices}) == 3
    texts = {0: "", 1: "", 2: ""}
    for event in client.completions.create(model="tiny", stream=True, **options):
        texts[event.choices[0].index] += event.choices[0].text
    assert list(texts.values()) == [each.text for each in expected.outputs]


def test_completions_of_several_prompts_are_numbered_through(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"prompt": ["x", "y"], "max_tokens": 4, "temperature": 5.0, "seed": 3, "n": 2}
    whole = client.completions.create(model="tiny", **options).choices
    assert [choice.index for choice in whole] == [0, 1, 2, 3]
    texts = dict.fromkeys(range(4), "")
    for event in client.completions.create(model="tiny", stream=True, **options):
        texts[event.choices[0].index] += event.choices[0].text
    assert list(texts.values()) == [choice.text for choice in whole]


def test_stop_strings_penalties_and_biases_reach_the_sampler(client: openai.OpenAI, served: Any) -> None:
    stopped = client.completions.create(model="tiny", prompt="[greet]", stop=[" there"])
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("Hello", "stop")
    banned = str(served.runner.tokenizer.encode("Hello")[0])
    biased = client.completions.create(model="tiny", prompt="[greet]", max_tokens=1, logit_bias={banned: -100})
    assert biased.choices[0].text != "Hello"
    [expected] = served.runner.generate("[count]", SamplingParams(presence_penalty=2.0, frequency_penalty=1.0))
    answer = client.completions.create(
        model="tiny", prompt="[count]", presence_penalty=2.0, frequency_penalty=1.0, max_tokens=512
    )
    assert answer.choices[0].text == expected.text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "x"]}, "prompt[1]"),
        ({"prompt": ["x", [1], 1]}, "prompt[2]"),
        ({"prompt": [10**9]}, "prompt"),
        ({"prompt": "x" * 600}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["x"] * 129}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": [str(i) for i in range(17)]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 1, "01": 2}}, "logit_bias"),
        ({"temperature": 1e39}, "temperature"),
        ({"logprobs": -1}, "logprobs"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats"),
        ({"stream_options": {}}, "stream_options"),
        ({"temprature": 1}, "temprature"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ],
    ids=str,
)
def test_what_is_refused_names_its_parameter(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/completions", json={"model": "tiny", "prompt": "x", **body})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
