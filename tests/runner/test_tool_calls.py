# SPDX-License-Identifier: Apache-2.0
"""A family names its notation of tool calls, and the parser may come from any plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
from hook_plugins import Site, install_family, site
from runner.tiny_tokenizers import byte_level
from toy_model import write_model

from atb_core import ModelRunner
from atb_core.errors import PluginError, RequestError
from atb_core.plugins import ParsedAnswer, ToolCall
from atb_core.runner.tool_calls import split_thoughts

__all__ = ["site"]

PARSER = """
    import re
    from atb_core.plugins import ParsedAnswer, ToolCall, ToolParser, hookimpl

    class CallParser(ToolParser):
        "CALL name(argument)"
        name = "{name}"

        def parse(self, text):
            calls = re.findall(r"CALL (\\w+)\\((\\w*)\\)", text)
            content = re.sub(r"CALL \\w+\\(\\w*\\)", "", text).strip()
            return ParsedAnswer(content, tuple(ToolCall(name, {{"argument": value}}) for name, value in calls))

    @hookimpl
    def atb_tool_parsers():
        return [CallParser]
"""


@pytest.fixture
def runner(site: Site, tmp_path: Path) -> ModelRunner:
    install_family(site)
    return ModelRunner(write_model(tmp_path / "model"), load_tokenizer=False)


def test_an_answer_is_taken_apart_in_the_familys_notation(site: Site, tmp_path: Path) -> None:
    install_family(site)
    site.install("atb-tools", PARSER.format(name="toy-tools"))
    runner = ModelRunner(write_model(tmp_path / "model"), load_tokenizer=False)
    answer = runner.parse_answer("I look. CALL weather(Bern) CALL time()")
    assert answer == ParsedAnswer(
        "I look.", (ToolCall("weather", {"argument": "Bern"}), ToolCall("time", {"argument": ""}))
    )


@pytest.mark.parametrize(
    ("text", "thoughts", "rest"),
    [
        ("<think>\nIt rains.\n</think>\n\nYes.", "It rains.", "Yes."),
        ("It rains.</think>Yes.", "It rains.", "Yes."),
        (" <think>It rains and", "It rains and", ""),
        ("<think></think>Yes.", "", "Yes."),
        (" Yes, <think> is a word.", "", " Yes, <think> is a word."),
    ],
)
def test_thoughts_stand_before_the_answer(text: str, thoughts: str, rest: str) -> None:
    assert split_thoughts(text) == (thoughts, rest)


@pytest.mark.parametrize(
    ("template", "thoughts", "content", "calls"),
    [
        ("{{ messages[0].content }}</think>", "CALL time()?", "Yes.", 0),
        ("{{ messages[0].content }}", "", "<think>?</think>Yes.", 1),
    ],
)
def test_a_call_in_a_thought_is_none_where_the_template_knows_thoughts(
    site: Site, tmp_path: Path, template: str, thoughts: str, content: str, calls: int
) -> None:
    install_family(site)
    site.install("atb-tools", PARSER.format(name="toy-tools"))
    model = write_model(tmp_path / "model")
    byte_level().save(str(model / "tokenizer.json"))
    (model / "chat_template.jinja").write_text(template)
    answer = ModelRunner(model).parse_answer("<think>CALL time()?</think>Yes.")
    assert (answer.reasoning_content, answer.content, len(answer.tool_calls)) == (thoughts, content, calls)


def test_a_notation_that_nobody_reads_is_an_error_that_lists_the_others(site: Site, runner: ModelRunner) -> None:
    site.install("atb-tools", PARSER.format(name="other-tools"))
    with pytest.raises(RequestError, match=r"offers the notation 'toy-tools' .*other-tools \(atb-tools 1\.0\)"):
        runner.parse_answer("text")


def test_a_family_without_a_notation_says_so(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(runner._router), "tool_parser", None)
    with pytest.raises(RequestError, match="the family of 'toy' names no notation for tool calls"):
        runner.parse_answer("text")


def test_two_parsers_of_one_name_are_both_named(site: Site, runner: ModelRunner) -> None:
    site.install("atb-a", PARSER.format(name="toy-tools"))
    site.install("atb-b", PARSER.format(name="toy-tools"))
    with pytest.raises(PluginError, match=r"atb-a 1\.0 and atb-b 1\.0"):
        runner.parse_answer("text")
