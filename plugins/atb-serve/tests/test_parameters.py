# SPDX-License-Identifier: Apache-2.0
"""Every parameter that is accepted changes the answer of a model whose answers depend on all that it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from scripted_model import write_random
from serving import serving

from atb_core import ModelRunner
from atb_serve.schemas import ChatBody, CompletionBody, Ignored, Unsupported

# What stands beside a parameter, and its value. Token 256 ends an answer.
LOTTERY = {"temperature": 50.0, "seed": 1}
END: dict[str, Any] = {"logit_bias": {"256": 100}}
SAMPLING: dict[str, tuple[dict[str, Any], Any]] = {
    "model": ({}, "nothing"),
    "stream": ({}, True),
    "stream_options": ({"stream": True}, {"include_usage": True}),
    "n": ({"seed": 1}, 2),
    "seed": ({"temperature": 50.0, "seed": 1}, 2),
    "stop": ({"structured_outputs": {"choice": ["abcde"]}}, "c"),
    "temperature": ({"seed": 1}, 50.0),
    "top_p": (LOTTERY, 1e-6),
    "top_k": (LOTTERY, 1),
    "min_p": (LOTTERY, 1.0),
    "presence_penalty": ({"max_tokens": 100}, 2.0),
    "frequency_penalty": ({"max_tokens": 100}, 2.0),
    "repetition_penalty": ({"max_tokens": 100}, 1000.0),
    "logit_bias": ({}, {"10": 100}),
    "max_tokens": ({}, 3),
    "min_tokens": (END, 2),
    "ignore_eos": (END, True),
    "stop_token_ids": ({"logit_bias": {"10": 100}}, [10]),
    "skip_special_tokens": ({**END, "ignore_eos": True}, False),
    "structured_outputs": ({}, {"regex": "[ab]{3}"}),
}
TEXTS = {
    "prompt": ({}, "another"),
    "echo": ({}, True),
    "logprobs": ({}, 2),
    "best_of": ({}, 2),
}
TOOL = {"type": "function", "function": {"name": "f"}}
CHAT = {
    "messages": ({}, [{"role": "user", "content": "another"}]),
    "max_completion_tokens": ({}, 3),
    "logprobs": ({}, True),
    "top_logprobs": ({"logprobs": True}, 2),
    "response_format": ({}, {"type": "json_object"}),
    "tools": ({}, [TOOL]),
    "tool_choice": ({"tools": [TOOL]}, "none"),
    "add_generation_prompt": ({}, False),
    "chat_template_kwargs": ({}, {"word": "x"}),
    "modalities": ({}, ["audio"]),
}
TEMPLATE = """\
{{ tools | tojson if tools else "" }}{{ word }}
{%- for message in messages %}{{ message.content }}{% endfor %}
{%- if add_generation_prompt %}!{% endif %}"""
# Of a model that makes several calls.
ELSEWHERE = {"parallel_tool_calls"}
BODIES = {
    CompletionBody: ("/v1/completions", {"prompt": "some text"}, {**SAMPLING, **TEXTS}),
    ChatBody: ("/v1/chat/completions", {"messages": [{"role": "user", "content": "some text"}]}, {**SAMPLING, **CHAT}),
}
ROWS = [
    pytest.param(path, {**text, "max_tokens": 20, **beside}, {name: value}, id=f"{path}-{name}")
    for path, text, rows in BODIES.values()
    for name, (beside, value) in rows.items()
]


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = write_random(tmp_path_factory.mktemp("random") / "tiny", TEMPLATE)
    with serving(ModelRunner(directory)) as served, served.http() as client:
        yield client


@pytest.mark.parametrize(("path", "body", "further"), ROWS)
def test_each_parameter_changes_the_answer(
    http: httpx.Client, path: str, body: dict[str, Any], further: dict[str, Any]
) -> None:
    if "max_completion_tokens" in further:
        del body["max_tokens"]

    def answer(body: dict[str, Any]) -> str:
        text = http.post(path, json=body).text
        return re.sub(r'"id":"[^"]*"|"created":\d+|call_\w+', "", text)

    before = answer(body)
    assert '"error"' not in before
    assert answer(body) == before, "what differs by itself shows nothing"
    assert answer({**body, **further}) != before


@pytest.mark.parametrize("kind", BODIES)
def test_each_parameter_is_shown(kind: Any) -> None:
    _, _, rows = BODIES[kind]
    silent = {each.name for each in msgspec.structs.fields(kind) if each.type in (Ignored, Unsupported)}
    assert rows.keys() | silent | ELSEWHERE >= {each.name for each in msgspec.structs.fields(kind)}
    assert not rows.keys() & silent
