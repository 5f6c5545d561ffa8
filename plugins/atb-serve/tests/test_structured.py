# SPDX-License-Identifier: Apache-2.0
"""An answer follows the grammar of its request, whatever the model would have said."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import jsonschema
import pytest

from atb_serve import structured

SCHEMAS: dict[str, Any] = {
    "object": {"type": "object", "properties": {"a": {"type": "integer", "maximum": 99}}, "required": ["a"],
               "additionalProperties": False},
    "enum": {"enum": ["red", "green", 3, None]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    "reference": {"$defs": {"x": {"type": "string", "maxLength": 3}}, "type": "object", "properties": {
        "x": {"$ref": "#/$defs/x"}}, "required": ["x"], "additionalProperties": False},
}  # fmt: skip


def complete(http: httpx.Client, **body: Any) -> httpx.Response:
    options = {"prompt": "[greet]", "max_tokens": 200, "temperature": 1.0, "seed": 1}
    return http.post("/v1/completions", json={**options, **body})


def chat(http: httpx.Client, **body: Any) -> httpx.Response:
    options = {"messages": [{"role": "user", "content": "[greet]"}], "max_tokens": 300}
    return http.post("/v1/chat/completions", json={**options, **body})


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_an_answer_is_valid_json_of_its_schema(http: httpx.Client, schema: dict[str, Any]) -> None:
    for seed in range(3):
        choice = complete(http, structured_outputs={"json": schema}, seed=seed).json()["choices"][0]
        assert choice["finish_reason"] == "stop"
        jsonschema.validate(json.loads(choice["text"]), schema)
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = chat(http, response_format=form).json()
    jsonschema.validate(json.loads(answer["choices"][0]["message"]["content"]), schema)


def test_a_stream_follows_its_grammar_too(http: httpx.Client) -> None:
    lines = complete(http, structured_outputs={"choice": ["yes", "no"]}, stream=True).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events) in ("yes", "no")


def test_each_completion_has_a_grammar_of_its_own(http: httpx.Client) -> None:
    answer = complete(http, structured_outputs={"regex": "[a-c]{3,9}"}, n=4, prompt=["x", "y"]).json()
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(texts) == 8
    assert all(re.fullmatch("[a-c]{3,9}", text) for text in texts)


def test_a_grammar_of_larks(http: httpx.Client) -> None:
    answer = complete(http, structured_outputs={"grammar": 'start: "<" /[0-9]{2}/ ">"'}).json()
    assert re.fullmatch("<[0-9]{2}>", answer["choices"][0]["text"])


def test_an_object_alone_is_asked_for(http: httpx.Client) -> None:
    answer = chat(http, response_format={"type": "json_object"}, temperature=0.5, seed=2, max_tokens=400).json()
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    assert text.startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)
    text = chat(http, response_format={"type": "text"}).json()["choices"][0]["message"]["content"]
    assert text == "Hello there, you."


def test_a_model_cannot_go_on_with_line_breaks(http: httpx.Client) -> None:
    [line_break] = http.post("/tokenize", json={"prompt": "\n"}).json()["tokens"]
    options = {"logit_bias": {str(line_break): 100}}
    # Options of the library in a schema are nothing that a request sets.
    schema = {**SCHEMAS["object"], "x-guidance": {"whitespace_pattern": "\n+", "key_separator": "="}}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    of_form = chat(http, response_format=form, **options).json()["choices"][0]["message"]
    tool = {"type": "function", "function": {"name": "pick", "parameters": schema}}
    of_call = chat(http, tools=[tool], tool_choice="required", **options).json()["choices"][0]["message"]
    for text in (of_form["content"], of_call["tool_calls"][0]["function"]["arguments"]):
        assert re.fullmatch(r'\{\n?"a"\n?:[\n ]?\d{1,2}[\n ]?\}', text)
    assert "\n" in of_form["content"]


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("outputs", "param"),
    [
        ({}, "structured_outputs"),
        ({"regex": "a", "choice": ["b"]}, "structured_outputs"),
        ({"regex": "("}, "structured_outputs"),
        ({"regex": "a" * 70_000}, "structured_outputs"),
        ({"grammar": "start: nothing"}, "structured_outputs"),
        ({"choice": []}, "structured_outputs.choice"),
        ({"choice": [""]}, "structured_outputs.choice"),
        ({"json": {"type": "thing"}}, "structured_outputs"),
        ({"json": {"$ref": "https://example.com/schema"}}, "structured_outputs"),
        ({"json": {"$ref": "file:///etc/passwd"}}, "structured_outputs"),
        ({"json": {"not": {"type": "string"}}}, "structured_outputs"),
        ({"json": deep(100)}, "structured_outputs"),
        ({"json": {"type": "integer", "minimum": 10**400}}, "structured_outputs"),
        ({"json": {"$ref": "#"}}, "structured_outputs"),
        ({"grammar": "start: start"}, "structured_outputs"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_grammar_is_refused(http: httpx.Client, outputs: dict[str, Any], param: str) -> None:
    answer = complete(http, structured_outputs=outputs)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_grammar_whose_masks_take_long_is_refused(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "_MASK_SECONDS", -1.0)
    answer = complete(http, structured_outputs={"regex": "(a{9}){9}"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "structured_outputs")
    assert "takes too long to follow" in answer.json()["error"]["message"]


def test_a_grammar_that_fails_later_ends_its_request_alone(http: httpx.Client) -> None:
    answer = complete(http, structured_outputs={"regex": "a?" * 500 + "a" * 500})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("structured_outputs", "invalid_grammar")
    assert "<state>" not in error["message"], "what the library counted is nobody's business"
    assert complete(http, temperature=0).json()["choices"][0]["text"] == "Hello there, you."


def test_the_name_of_a_special_token_is_no_text(http: httpx.Client) -> None:
    answer = complete(http, structured_outputs={"choice": ["x<|im_end|>y"]})
    assert answer.status_code == 400, "a token that ends the answer would leave half of the text"
    assert "needs the name of a special token as text" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [{"ignore_eos": True}, {"min_tokens": 3}], ids=str)
def test_what_a_grammar_cannot_be_combined_with(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = complete(http, structured_outputs={"choice": ["yes"]}, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))
