# SPDX-License-Identifier: Apache-2.0
"""`/v1/chat/completions` gives OpenAI's client what the runner gives, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import openai
import pytest

from atb_core import SamplingParams
from atb_serve.schemas import ChatBody

GREET: list[Any] = [{"role": "user", "content": "[greet]"}]
COUNT: list[Any] = [{"role": "user", "content": "[count]"}]


def test_a_conversation_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=GREET)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello there, you.")
    assert choice.finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens == 5
    assert answer.usage.prompt_tokens == len("user: ") + 1


def test_a_stream_has_the_role_first_and_the_reason_last(client: openai.OpenAI) -> None:
    events = list(client.chat.completions.create(model="tiny", messages=GREET, stream=True))
    assert [event.choices[0].delta.content for event in events] == ["", "Hello", " there", ", you", ".", None]
    assert events[0].choices[0].delta.role == "assistant"
    assert [event.choices[0].finish_reason for event in events] == [None] * 5 + ["stop"]
    assert len({event.id for event in events}) == 1


def test_a_stream_ends_with_the_usage_if_it_is_asked_for(client: openai.OpenAI) -> None:
    events = list(
        client.chat.completions.create(
            model="tiny", messages=COUNT, max_completion_tokens=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert events[-1].choices == []
    assert events[-1].usage is not None and events[-1].usage.completion_tokens == 3
    assert all(event.usage is None for event in events[:-1])


def test_without_a_limit_an_answer_goes_on_to_its_end(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=COUNT)
    assert answer.choices[0].message.content == "".join(f"{number} " for number in range(200))


def test_several_answers_are_those_of_their_seeds(client: openai.OpenAI, served: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": "x"}]
    options: dict[str, Any] = {"messages": messages, "seed": 5, "n": 2, "temperature": 5.0, "max_tokens": 6}
    [expected] = served.runner.chat(messages, SamplingParams(n=2, seed=5, temperature=5.0, max_tokens=6))
    texts = [each.text for each in expected.outputs]
    answer = client.chat.completions.create(model="tiny", **options)
    assert [choice.message.content for choice in answer.choices] == texts
    streamed = {0: "", 1: ""}
    for event in client.chat.completions.create(model="tiny", stream=True, **options):
        streamed[event.choices[0].index] += event.choices[0].delta.content or ""
    assert list(streamed.values()) == texts


def test_log_probabilities_name_each_token_and_the_likeliest(client: openai.OpenAI, served: Any) -> None:
    options: dict[str, Any] = {"messages": GREET, "logprobs": True, "top_logprobs": 3, "max_tokens": 2}
    answer = client.chat.completions.create(model="tiny", **options)
    [expected] = served.runner.chat(GREET, SamplingParams(max_tokens=2, logprobs=3))
    steps = expected.outputs[0].logprobs
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["Hello", " there"]
    assert [entry.bytes for entry in logprobs.content] == [list(b"Hello"), list(b" there")]
    for entry, step in zip(logprobs.content, steps, strict=True):
        assert [top.logprob for top in entry.top_logprobs] == [each.logprob for each in step.values()]
    streamed = [
        entry.token
        for event in client.chat.completions.create(model="tiny", stream=True, **options)
        if event.choices[0].logprobs is not None
        for entry in event.choices[0].logprobs.content or ()
    ]
    assert streamed == ["Hello", " there"]


def test_content_in_parts_is_text(client: openai.OpenAI) -> None:
    parts: list[Any] = [{"type": "text", "text": "[greet]"}]
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "Hello there, you."


def test_the_developer_is_the_system_for_a_template_that_does_not_know_him(http: httpx.Client, served: Any) -> None:
    messages = [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]
    answer = http.post("/tokenize", json={"messages": messages})
    assert served.runner.tokenizer.decode(answer.json()["tokens"]) == "system: auser: b"


def test_an_answer_may_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=GREET)
    again: list[Any] = [*GREET, answer.choices[0].message.model_dump(), *GREET]
    assert client.chat.completions.create(model="tiny", messages=again).choices[0].message.content


def test_a_template_that_knows_no_tools_refuses_them(make_server: Callable[..., Any]) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    with make_server(template="{{ messages[-1].content }}") as served, served.http() as http:
        error = http.post("/v1/chat/completions", json={"messages": GREET, "tools": [tool]}).json()["error"]
    assert error["param"] == "tools" and "takes no tools" in error["message"]


def test_a_template_that_fails_or_refuses_is_an_error_of_the_request(make_server: Callable[..., Any]) -> None:
    template = "{{ raise_exception('users first') if messages[0].role != 'user' else messages[0].no.such }}"
    with make_server(template=template) as served, served.http() as http:
        for role, reason, next_step in (("system", "users first", ""), ("user", "fails", "/v1/completions continues")):
            for path in ("/v1/chat/completions", "/tokenize", "/v1/responses"):
                text = [{"role": role, "content": "x"}]
                answer = http.post(path, json={"input" if path == "/v1/responses" else "messages": text})
                error = answer.json()["error"]
                assert answer.status_code == 400
                assert error["param"] == ("input" if path == "/v1/responses" else "messages")
                assert reason in error["message"] and next_step in error["message"]
                assert "atb run" not in error["message"]


def test_null_is_what_a_client_writes_for_nothing(http: httpx.Client) -> None:
    fields = [field.name for field in msgspec.structs.fields(ChatBody) if field.name not in ("messages", "model")]
    nulls = dict.fromkeys(fields)
    answer = http.post("/v1/chat/completions", json={"messages": GREET, **nulls, "tools": [], "top_logprobs": 0})
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there, you."


def test_ignored_parameters_change_nothing(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=GREET, user="me", metadata={"a": "b"}, store=False, extra_body={"service_tier": "auto"}
    )
    assert answer.choices[0].message.content == "Hello there, you."


def called(arguments: str) -> dict[str, Any]:
    return {"id": "x", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "judge", "content": "x"}]}, "messages[0]"),
        ({"messages": [*GREET, {"role": "user"}]}, "messages[1]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0]",
        ),
        ({"messages": [{"role": "user", "content": "x", "color": 1}]}, "messages[0].color"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{**GREET[0], "tool_call_id": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{**GREET[0], "reasoning": "x"}]}, "messages[0].reasoning"),
        ({"messages": [{**GREET[0], "tool_calls": [called("{}")]}]}, "messages[0].tool_calls"),
        *(
            (
                {"messages": [{"role": "assistant", "tool_calls": [called(text)]}]},
                "messages[0].tool_calls[0].function.arguments",
            )
            for text in ("[]", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 5000)
        ),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"chat_template_kwargs": {"nothing": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": []}, "functions"),
        ({"audio": {}}, "audio"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"seed": "x"}, "seed"),
    ],
    ids=str,
)
def test_what_is_refused_names_its_parameter(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "tiny", "messages": GREET, **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text
    assert param != "max_completion_tokens" or param in answer.json()["error"]["message"]
