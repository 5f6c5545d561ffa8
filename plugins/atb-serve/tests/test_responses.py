# SPDX-License-Identifier: Apache-2.0
"""`/v1/responses` gives OpenAI's client items: thoughts, text and calls, whole and in streams."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import openai
import pytest
from scripted_model import TEMPLATE

from atb_serve.schemas import ResponsesBody

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Bern"]}}, "required": ["city"],
                   "additionalProperties": False},
    "strict": True,
}  # fmt: skip
SCRIPTS = {
    "[greet]": ["Hello", " there"],
    "[call]": ["I look. ", '<tool_call>\n{"name": "weather", ', '"arguments": {"city": "Bern"}}', "\n</tool_call>"],
    "[think]": ["<think>", "Hm", "</think>", "\n\nYes"],
    "[count]": [f"{number} " for number in range(50)],
}


@pytest.fixture(scope="module")
def client(make_server: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    template = "{# </think> #}" + TEMPLATE
    with make_server(SCRIPTS, template=template, model_type="qwen2") as served, served.openai() as found:
        yield found


def test_a_text_is_answered(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="[greet]", instructions="Be kind.", metadata={"a": "b"})
    assert (answer.output_text, answer.status) == ("Hello there", "completed")
    assert (answer.metadata, answer.instructions) == ({"a": "b"}, "Be kind.")
    assert answer.usage is not None
    assert answer.usage.input_tokens == len("system: Be kind.user: ") + 1
    assert answer.usage.output_tokens == 3


def test_an_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="[count]", max_output_tokens=3)
    assert (answer.output_text, answer.status) == ("0 1 2 ", "incomplete")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_a_stream_tells_of_each_item(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="tiny", input="[greet]", stream=True))
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello there"


def test_the_client_puts_a_stream_together(client: openai.OpenAI) -> None:
    with client.responses.stream(model="tiny", input="[call]", tools=[WEATHER]) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_response()
    assert [item.type for item in answer.output] == ["message", "function_call"]


def test_thoughts_are_an_item(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="[think]")
    thoughts, message = answer.output
    # With the mark of their end.
    assert answer.usage is not None and answer.usage.output_tokens_details.reasoning_tokens == 2
    assert (thoughts.type, message.type, answer.output_text) == ("reasoning", "message", "Yes")
    assert thoughts.content is not None and thoughts.content[0].text == "Hm"
    events = list(client.responses.create(model="tiny", input="[think]", stream=True))
    assert [event.type.removeprefix("response.") for event in events][2:8] == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done",
        "output_item.done",
    ]  # fmt: skip
    question: Any = {"role": "user", "content": "[greet]"}
    again = client.responses.create(model="tiny", input=[thoughts.to_dict(), message.to_dict(), question])
    assert again.output_text == "Hello there"


def test_a_call_and_its_output(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="tiny", input="[call]", tools=[WEATHER])
    message, call = answer.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Bern"})
    parts = [{"type": "input_text", "text": "[gr"}, {"type": "input_text", "text": "eet]"}]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": parts}
    question: Any = {"role": "user", "content": [{"type": "input_text", "text": "[call]"}]}
    again = client.responses.create(model="tiny", input=[question, message.to_dict(), call.to_dict(), output])
    assert again.output_text == "Hello there"


def test_a_call_can_be_required_and_a_schema_too(client: openai.OpenAI) -> None:
    [call] = client.responses.create(model="tiny", input="x", tools=[WEATHER], tool_choice="required").output
    assert json.loads(call.arguments) == {"city": "Bern"}
    form: Any = {"format": {"type": "json_schema", "name": "a", "schema": {"enum": [3]}, "strict": True}}
    assert client.responses.create(model="tiny", input="x", text=form).output_text == "3"


def test_null_is_what_a_client_writes_for_nothing(client: openai.OpenAI) -> None:
    fields = [field.name for field in msgspec.structs.fields(ResponsesBody) if field.name not in ("input", "model")]
    nulls: dict[str, Any] = dict.fromkeys(fields)
    further = {"include": ["reasoning.encrypted_content"], "stream_options": {}, "text": {"verbosity": None}}
    answer = client.responses.create(model="tiny", input="[greet]", extra_body={**nulls, **further})
    assert answer.output_text == "Hello there"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "judge", "content": "x"}]}, "input"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "x", "name": "f", "arguments": "{"}]}, "input[0].arguments"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"previous_response_id": "x"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"include": ["message.output_text.logprobs"]}, "include[0]"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "thing"}}}}, "text.format"),
    ],
    ids=str,
)
def test_what_is_refused_names_its_parameter(client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="tiny", input=body.pop("input", "x"), extra_body=body)
    assert caught.value.param == param
    # Nothing of what parameters of other routes are called.
    assert not re.search("messages'|max_tokens|max_completion_tokens|response_format", caught.value.message)
