# SPDX-License-Identifier: Apache-2.0
"""Templates render as transformers renders them, and a hostile one ends in bounded time and memory."""

from __future__ import annotations

import resource
from typing import Any

import pytest
from runner import templates

from atb_core.errors import RequestError, TokenizerError
from atb_core.runner.chat_template import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'Température & <temps> d\'une ville, "degrés"',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
CHATS: dict[str, list[dict[str, Any]]] = {
    "one question": [{"role": "user", "content": "Hi <b>there</b> & 'you' \"all\"\t"}],
    "with system": [
        {"role": "system", "content": " Be brief.\n"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2 "},
        {"role": "user", "content": "你好 👋🏽"},
    ],
    "with thoughts": [
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nbecause"},
        {"role": "user", "content": "really?"},
        {"role": "assistant", "content": "<think>\nyes\n</think>\n\nyes"},
    ],
    "with tools": [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "type": "function",
                    "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "deep": [1.5, None]}},
                }
            ],
        },
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "hot"},
        {"role": "user", "content": "Thanks"},
    ],
}


def by_transformers(source: str, messages: list[dict[str, Any]], **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([messages], chat_template=source, **SPECIAL, **variables)
    return str(rendered[0])


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("template", templates.ALL)
@pytest.mark.parametrize(
    "variables",
    [
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": True, "tools": [WEATHER, WEATHER]},
        {"add_generation_prompt": True, "enable_thinking": False, "date_string": "1 Jan 2030"},
    ],
    ids=["prompt", "whole", "tools", "variables"],
)
def test_renders_as_transformers_does(template: str, chat: str, variables: dict[str, Any]) -> None:
    source, messages = templates.ALL[template], CHATS[chat]
    expected, refusal = "", ""
    try:
        expected = by_transformers(source, messages, **variables)
    except Exception as error:  # jinja2's own, of several kinds
        refusal = str(error)
    if not refusal:
        assert ChatTemplate(source, SPECIAL).render(messages, **variables) == expected
        return
    with pytest.raises((RequestError, TokenizerError), match=r"refuses|fails") as raised:
        ChatTemplate(source, SPECIAL).render(messages, **variables)
    if "refuses" in str(raised.value):
        assert refusal in str(raised.value)


KINDS = {
    "guard": "{% if tools is iterable and tools | length > 0 %}T{% endif %}{% if documents is not iterable %}D"
    "{% endif %}",
    "kinds of none": "{{ tools is none }}{{ tools is defined }}{{ never is none }}{{ tools is sequence }}"
    "{{ tools or 5 }}"
    "{{ tools | default('x') }}{{ tools | default('x', true) }}{{ tools | string }}{{ [tools, never | d] | tojson }}",
    "strings": "{{ 'a-b-c'.rpartition('-') }}{{ 'a\tb'.expandtabs(2) }}{{ 'ab'.center(6, '*') }}{{ '7'.zfill(3) }}"
    "{{ 'Ab'.swapcase() }}{{ 'a b'.title() }}{{ 'a,b'.split(',', 1)[-1] }}{{ 'abcab'.rfind('ab') }}"
    "{{ '½'.isnumeric() }}"
    "{{ 'x'.join(['a', 'b']) }}{{ 'ß'.casefold() }}{{ 'ab'.removesuffix('b') }}{{ 'aXb'.translate({88: 45}) }}",
    "numbers": "{{ 7 // 2 }} {{ -7 % 3 }} {{ -7 // 2 }} {{ 2 ** 70 }} {{ 1 / 3 }} {{ 1e-7 }} {{ 3.0 }} "
    "{{ 10 | round(2) }}"
    " {{ (2.5) | round | int }} {{ '12' | int + 1 }} {{ 'x' | float(1.5) }} {{ 5 | filesizeformat }} {{ True + 1 }}",
    "formats": "{{ '%5.2f|%-4s|%x' % (1.005, 'a', 255) }}{{ '{:>4}|{!r}'.format(3, 'q') }}"
    "{{ '%s %s' | format('a', none) }}",
    "filters": "{{ [3, 1, 2] | sort | join('-') }}{{ 'b a' | wordwrap(1) }}{{ {'b': 1, 'a': 2} | dictsort }}"
    "{{ [1, 2, 3, 4] | batch(3, 0) | list }}{{ ['a', 'A', 'b'] | unique | list }}{{ 'a<b' | e }}{{ 'x y' | urlencode }}"
    "{{ [{'k': 1}, {'k': 2}, {'k': 1}] | groupby('k') | length }}{{ 'a\nb' | indent(2, true) }}{{ messages | pprint }}"
    "{{ [1, 2] | sum }}{{ 'abc' | list | reverse | join }}{{ messages | map(attribute='role') | join(',') }}"
    "{{ ['a', ''] | select | list }}{{ '<b>x &amp; y</b>' | striptags }}{{ 'aXa' | replace('a', 'b', 1) }}"
    "{{ 'mm' | xmlattr if false else 'm' }}",
    "json": "{{ messages | tojson(indent=2) }}{{ {'b': 'é<', 'a': [1.0, true, none]} | tojson(sort_keys=true) }}"
    "{{ 'é' | tojson(ensure_ascii=true) }}{{ {'a': 1, 'b': 2} | tojson(separators=(',', ':')) }}",
    "mappings": "{% for k, v in {'x': 1, 'y': {}}.items() %}{{ k }}={{ v }};{% endfor %}{{ {'a': 1}.get('b', 2) }}"
    "{{ {'a': 1} | items | list }}{{ {'a': 1}.keys() | list }}{{ dict(a=1, b=2) }}{{ 'a' in {'a': 1} }}"
    "{{ messages[0].items is callable }}",
    "loops": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}"
    "{{ loop.cycle('a', 'b') }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.changed(i // 2) }}{{ loop.revindex0 }}"
    "{% endfor %}"
    "{% for x in [[1, [2]], [3]] recursive %}{{ x if x is number else loop(x) }}{{ loop.depth }}{% else %}E"
    "{% endfor %}",
    "scopes": "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}{% with y = 2 %}"
    "{{ y }}{% endwith %}"
    "{{ y }}{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}"
    "{% set block %} in {{ x }} {% endset %}{{ block }}{% generation %}{% set x = 9 %}{{ x }}{% endgeneration %}"
    "{{ x }}",
    "macros": "{% macro m(a, b='d') %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{{ caller() if caller else '' }}"
    "{% endmacro %}"
    "{{ m(1) }}{{ m(1, 2, 3, c=4) }}{% call m('x') %}body{% endcall %}{% filter upper %}up{% endfilter %}",
    "undefined": "{{ never }}{{ messages[0].never }}{{ messages[9] }}{{ never is defined }}{{ (never or 'e') ~ 1 }}",
    "spaces": "  {%- if true %}\n  a\n  {%+ if true %}b{% endif %}\n{% endif -%}\n\n c \n{# note #}\n  "
    "{{ 1 -}}  \n d\r\ne\rf\n",
    "lines": "{% for m in messages %}\r\n{{ m.content }}\r\n{% endfor %}\r\n",
    "raw": "{% raw %}{{ x }}{% endraw %}{{ '{{' }}{{ \"a\\nb\\u00e9\" }}",
    "slices": "{{ messages[::-1][0].role }}{{ 'abcdef'[-3:] }}{{ [1, 2, 3][5:] }}{{ (1, 2) + (3,) }}{{ [0] * 3 }}"
    "{{ 'a' < 'b' }}"
    "{{ [1, 2] == [1, 2.0] }}{{ 1 in (1, 2) }}{{ not 'x' }}{{ 1 if false }}",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_language_is_that_of_transformers(kind: str) -> None:
    for messages in CHATS.values():
        expected = by_transformers(KINDS[kind], messages)
        assert ChatTemplate(KINDS[kind], SPECIAL).render(messages, add_generation_prompt=False) == expected


PARTS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
]


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
        "{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endif %}{% endfor %}",
        "{% macro show(c) %}{% if c is not string %}{% set c = c | map(attribute='text') | join %}{% endif %}"
        "{{ c }}{% endmacro %}"
        "{% for m in messages %}{{ show(m['content']) }}{% endfor %}",
        "{{ messages[1]['content'][0]['text'] }}",
        "{% set c = messages[-1].content %}{% if c is iterable and c is not string %}{{ c | tojson }}{% endif %}",
    ],
)
def test_a_template_that_looks_into_parts_gets_them(source: str) -> None:
    assert ChatTemplate(source).render(PARTS) == by_transformers(source, PARTS)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ '<' + m.content + '>' }}{% endfor %}",
        "{% for m in messages %}<{{ m['content'] | trim }}>{% endfor %}",
        "{% for m in messages %}<{{ m.content if m.content is string }}>{% endfor %}",
        "{% for m in messages %}<{{ m.content.strip() }}>{% endfor %}",
    ],
)
def test_a_template_that_knows_only_texts_gets_a_text(source: str) -> None:
    assert ChatTemplate(source).render(PARTS) == "<Be brief.><one \ntwo>"


@pytest.mark.parametrize("content", [["a text"], [{"type": "text", "text": None}], [3]])
def test_a_list_that_is_no_parts_reaches_the_template_as_it_is(content: list[Any]) -> None:
    source, messages = "{% for m in messages %}{{ m.content }}{% endfor %}", [{"role": "user", "content": content}]
    assert ChatTemplate(source).render(messages) == by_transformers(source, messages)


def test_a_refusal_repeats_the_templates_words() -> None:
    source = "{{ raise_exception('Only user and assistant roles are supported!') }}"
    with pytest.raises(RequestError, match="Only user and assistant roles are supported!"):
        ChatTemplate(source).render(CHATS["one question"])


HOSTILE = {
    "nested loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x"
    "{% endfor %}{% endfor %}{% endfor %}",
    "a huge range": "{% for a in range(999999999999) %}x{% endfor %}",
    "recursion": "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}",
    "mutual recursion": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "a huge repetition": "{{ 'a' * 999999999999 }}",
    "doubling": "{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}"
    "{% endfor %}{{ ns.x }}",
    "doubling a list": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}"
    "{% endfor %}{{ ns.x | length }}",
    "a huge field width": "{{ '%999999999d' | format(3) }}",
    "a huge indent": "{{ messages | tojson(indent=999999999) }}",
    "a long output": "{% for a in range(9999) %}{{ 'a' * 9999 }}{% endfor %}",
    "a huge power": "{{ 9 ** (9 ** 9) }}",
    "nested brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a long literal": "{{ 'x'.join(['" + "a" * 99999 + "'] * 9999) }}",
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_template_ends_with_an_error_and_memory_stays_bounded(
    attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atb_core.runner.chat_template._TIME_LIMIT", 2.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TokenizerError, match=r"chat template (fails|cannot be rendered|takes more than)"):
        ChatTemplate(HOSTILE[attack]).render(CHATS["one question"])
    # Kilobytes. The rendering process has its own limit; this one must not grow with it.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    monkeypatch.undo()
    assert ChatTemplate("{{ messages[0].role }}").render(CHATS["one question"]) == "user"


def test_a_template_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.runner.chat_template._TIME_LIMIT", 0.05)
    slow = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TokenizerError, match="takes more than"):
        ChatTemplate(slow).render(CHATS["one question"])
    monkeypatch.undo()
    assert ChatTemplate("{{ messages[0].role }}").render(CHATS["one question"]) == "user"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages[0].__init__.__globals__ }}",
        "{{ strftime_now.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    try:
        text = ChatTemplate(source).render(CHATS["one question"])
    except TokenizerError:
        return
    assert text == ""


@pytest.mark.parametrize("source", ["{{ 'x' }", "{% for %}", "{{ 1 / 0 }}", "{{ messages.nothing.more }}"])
def test_a_faulty_template_says_where(source: str) -> None:
    with pytest.raises(TokenizerError, match=r"fails: .*chat_template:1"):
        ChatTemplate(source).render(CHATS["one question"])


def test_what_is_not_plain_data_is_refused() -> None:
    with pytest.raises(RequestError, match="strings, numbers, lists and dicts"):
        ChatTemplate("x").render([{"role": "user", "content": object()}])


def test_an_absurdly_long_template_is_refused() -> None:
    with pytest.raises(TokenizerError, match="at most"):
        ChatTemplate("x" * (2 << 20))


def test_a_long_conversation_renders() -> None:
    messages = [{"role": ("user", "assistant")[i % 2], "content": f"message {i} " * 50} for i in range(2000)]
    text = ChatTemplate(templates.TOOLS_IN_XML).render(messages)
    assert text == by_transformers(templates.TOOLS_IN_XML, messages, add_generation_prompt=True)
