# SPDX-License-Identifier: Apache-2.0
"""Tool calls and thoughts come apart from the text, whole and in streams, in the notations of the families."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from scripted_model import TEMPLATE

from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser
from atb_qwen2.tool_calls import Qwen2ToolParser
from atb_serve.answers import AnswerSplitter

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bern", "Basel"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "time"}}
JSON_CALL = ['{"name": "wea', 'ther", "argu', 'ments": {"city"', ': "Bern"}', "}"]
LLAMA_CALL = ['{"name": "wea', 'ther", "para', 'meters": {"city"', ': "Bern"}', "}"]
# A comment makes the model one that thinks.
THINKS = "{# </think> #}" + TEMPLATE + "{% if enable_thinking is defined and enable_thinking %}<think>{% endif %}"
QWEN = {
    "[call]": ["I look", ". ", "<tool_", "call>\n", *JSON_CALL, "\n</tool_call>", " "],
    "[time]": ["\n<tool_call>\n", '{"name": "time"}', "\n</tool", "_call>"],
    "[text]": ["a <to", "ol", "_box>"],
    "[think]": ["<think>", "\nHm, ", "well", "</think>", "\n\nYes", "!"],
}
LLAMA = {"[call]": LLAMA_CALL, "[text]": ["Hello ", "you"]}


@pytest.fixture(scope="module")
def qwen(make_server: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a model in Qwen2.5's notation that may think."""
    with make_server(QWEN, template=THINKS, model_type="qwen2") as served, served.openai() as client:
        yield client


@pytest.fixture(scope="module")
def llama(make_server: Callable[..., Any]) -> Iterator[openai.OpenAI]:
    """OpenAI's client of a model in Llama's notation."""
    with make_server(LLAMA) as served, served.openai() as client:
        yield client


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    messages: list[Any] = [{"role": "user", "content": text}]
    [choice] = client.chat.completions.create(model="tiny", messages=messages, **options).choices
    return choice


def stream(client: openai.OpenAI, text: str, **options: Any) -> dict[str, Any]:
    """Puts the deltas of a stream together, as clients do."""
    messages: list[Any] = [{"role": "user", "content": text}]
    found: dict[str, Any] = {"content": "", "reasoning": "", "calls": {}, "reason": None}
    for event in client.chat.completions.create(model="tiny", messages=messages, stream=True, **options):
        [choice] = event.choices
        found["content"] += choice.delta.content or ""
        found["reasoning"] += getattr(choice.delta, "reasoning_content", None) or ""
        found["reason"] = choice.finish_reason or found["reason"]
        for call in choice.delta.tool_calls or ():
            known = found["calls"].setdefault(call.index, {"name": "", "arguments": "", "ids": []})
            known["name"] += call.function.name or ""
            known["arguments"] += call.function.arguments or ""
            known["ids"] += [call.id] if call.id else []
            # No client ever has half of a text.
            assert known["arguments"] == "" or json.loads(known["arguments"]) is not None
    return found


def test_a_call_is_taken_out_of_the_answer(qwen: openai.OpenAI) -> None:
    choice = ask(qwen, "[call]", tools=[WEATHER])
    assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Bern"}
    assert call.id


def test_a_call_is_taken_out_of_a_stream(qwen: openai.OpenAI) -> None:
    found = stream(qwen, "[call]", tools=[WEATHER])
    assert (found["content"], found["reason"]) == ("I look.", "tool_calls")
    [call] = found["calls"].values()
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Bern"})
    assert len(call["ids"]) == 1


def test_a_call_without_arguments_and_nothing_else(qwen: openai.OpenAI) -> None:
    choice = ask(qwen, "[time]", tools=[TIME])
    assert choice.message.content is None
    assert [call.function.arguments for call in choice.message.tool_calls] == ["{}"]
    assert stream(qwen, "[time]", tools=[TIME])["calls"][0]["arguments"] == "{}"


def test_text_that_begins_like_a_call_is_text(qwen: openai.OpenAI) -> None:
    assert ask(qwen, "[text]", tools=[TIME]).message.content == "a <tool_box>"
    found = stream(qwen, "[text]", tools=[TIME])
    assert (found["content"], found["calls"], found["reason"]) == ("a <tool_box>", {}, "stop")


def test_without_tools_a_call_is_text(qwen: openai.OpenAI) -> None:
    for options in ({}, {"tools": [TIME], "tool_choice": "none"}):
        choice = ask(qwen, "[time]", **options)
        assert choice.message.content == "".join(QWEN["[time]"])
        assert choice.message.tool_calls is None


def test_an_answer_in_json_is_a_call_for_llama(llama: openai.OpenAI) -> None:
    choice = ask(llama, "[call]", tools=[WEATHER])
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")
    assert stream(llama, "[call]", tools=[WEATHER])["calls"][0]["arguments"] == '{"city": "Bern"}'
    assert stream(llama, "[text]", tools=[WEATHER])["content"] == "Hello you"


def test_thoughts_are_apart_from_the_answer(qwen: openai.OpenAI) -> None:
    choice = ask(qwen, "[think]")
    assert (choice.message.reasoning_content, choice.message.content) == ("Hm, well", "Yes!")
    found = stream(qwen, "[think]")
    assert (found["reasoning"], found["content"]) == ("Hm, well", "Yes!")


def test_thoughts_that_the_prompt_has_opened(qwen: openai.OpenAI) -> None:
    options = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    choice = ask(qwen, "x", **options)
    assert (choice.message.reasoning_content, choice.message.content) == ("Hm, well", "Yes!")
    found = stream(qwen, "x", **options)
    assert (found["reasoning"], found["content"]) == ("Hm, well", "Yes!")


@pytest.mark.parametrize("family", ["qwen", "llama"])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str)
def test_a_call_can_be_required(request: pytest.FixtureRequest, family: str, choice: Any) -> None:
    client = request.getfixturevalue(family)
    answer = ask(client, "x", tools=[WEATHER], tool_choice=choice, max_tokens=200)
    [call] = answer.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Bern", "Basel")
    # Text, as answers have it anyway, is no other grammar.
    options = {"tools": [WEATHER], "tool_choice": choice, "response_format": {"type": "text"}}
    assert stream(client, "x", **options)["calls"][0]["name"] == "weather"


def basel(strict: bool | None) -> Any:
    """The weather of one city, which the scripted call does not name."""
    parameters = {**WEATHER["function"]["parameters"], "properties": {"city": {"enum": ["Basel"]}}}
    return {"type": "function", "function": {**WEATHER["function"], "parameters": parameters, "strict": strict}}


@pytest.mark.parametrize("family", ["qwen", "llama"])
def test_arguments_of_a_strict_function_follow_its_schema(request: pytest.FixtureRequest, family: str) -> None:
    client = request.getfixturevalue(family)
    for strict, city in ((True, "Basel"), (False, "Bern"), (None, "Bern")):
        options: Any = {"tools": [basel(strict)], "max_tokens": 200}
        [call] = ask(client, "[call]", **options).message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": city})
        streamed = stream(client, "[call]", **options)["calls"][0]["arguments"]
        assert json.loads(streamed) == {"city": city}
    assert ask(client, "[text]", tools=[basel(True)]).message.content in ("a <tool_box>", "Hello you")


def test_the_marks_of_a_call_may_be_one_token_each_as_those_of_real_models_are(make_server: Callable[..., Any]) -> None:
    call = ["Well", "<tool_call>", '\n{"name": "weather", "arguments": {"city": ', '"Bern"}}\n', "</tool_call>"]
    with make_server({"[call]": call}, model_type="qwen2") as served, served.openai() as client:
        for strict, city in ((True, "Basel"), (False, "Bern")):
            message = ask(client, "[call]", tools=[basel(strict)], max_tokens=200).message
            assert (message.content, json.loads(message.tool_calls[0].function.arguments)) == ("Well", {"city": city})
        required = ask(client, "[call]", tools=[WEATHER], tool_choice="required", max_tokens=200)
        assert (required.finish_reason, len(required.message.tool_calls)) == ("tool_calls", 1)


def test_functions_beside_a_strict_one_take_any_object(qwen: openai.OpenAI) -> None:
    # Which one is called is the model's matter: where names part, the grammar has its own way to cut text into tokens.
    [call] = ask(qwen, "[call]", tools=[basel(True), TIME], max_tokens=200).message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert arguments == {"city": "Basel"} if call.function.name == "weather" else isinstance(arguments, dict)


def test_a_strict_function_leaves_the_thoughts_and_the_text_before_a_call(qwen: openai.OpenAI) -> None:
    choice = ask(qwen, "[think]", tools=[basel(True)])
    assert (choice.message.reasoning_content, choice.message.content) == ("Hm, well", "Yes!")
    assert ask(qwen, "[call]", tools=[basel(True)], max_tokens=200).message.content == "I look."


def test_a_required_call_comes_after_the_thoughts(qwen: openai.OpenAI) -> None:
    options = {"chat_template_kwargs": {"enable_thinking": True}}
    choice = ask(qwen, "x", tools=[WEATHER], tool_choice="required", extra_body=options, max_tokens=200)
    assert choice.message.reasoning_content.startswith("Hm, well")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": [TIME, TIME]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [basel(True)], "response_format": {"type": "json_object"}}, "tools"),
        ({"tools": [TIME], "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
    ],
    ids=lambda value: str(value)[:70],
)
def test_what_is_refused_names_its_parameter(qwen: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(qwen, "x", extra_body=body)
    assert caught.value.param == param


def pieces_of(splitter: AnswerSplitter, parts: list[str]) -> tuple[str, str, list[ToolCall]]:
    found = [piece for part in parts for piece in splitter.push(part)] + list(splitter.finish())
    calls = [piece.call for piece in found if piece.call is not None]
    return "".join(each.reasoning for each in found), "".join(each.content for each in found), calls


def test_the_cut_into_pieces_changes_nothing() -> None:
    text = (
        '<think>\na\n </think>\n\nb <c\n<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call>"}}\n</tool_call>\n'
    )
    text += '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call> d'
    expected = ("a", "b <c\nd", [ToolCall("f", {"a": "</tool_call>"}), ToolCall("g", {})])
    for first, second in itertools.combinations(range(0, len(text), 3), 2):
        parts = [text[:first], text[first:second], text[second:]]
        assert pieces_of(AnswerSplitter(thinks=True, parser=Qwen2ToolParser()), parts) == expected
    assert pieces_of(AnswerSplitter(thinks=True, parser=Qwen2ToolParser()), list(text)) == expected
    one = AnswerSplitter(thinks=True, parser=Qwen2ToolParser(), max_calls=1)
    assert pieces_of(one, list(text))[2] == expected[2][:1]


class WholeAnswers(ToolParser):
    """A parser that does not know what is certain."""

    name = "whole"

    def parse(self, text: str) -> ParsedAnswer:
        return ParsedAnswer(text.upper(), (ToolCall("f"),)) if text.endswith("f") else ParsedAnswer(text.upper())


def test_without_certainty_the_answer_comes_at_its_end() -> None:
    splitter = AnswerSplitter(parser=WholeAnswers())
    assert list(splitter.push("a")) == list(splitter.push("f")) == []
    assert [(piece.content, piece.call) for piece in splitter.finish()] == [("AF", None), ("", ToolCall("f"))]
