# SPDX-License-Identifier: Apache-2.0
"""`atb chat`: a conversation that the model remembers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.options import (
    LOADING,
    chat_options,
    load_runner,
    model_options,
    sampling_options,
    sampling_params,
    template_variables,
)
from atb_core.cli.output import TextStream, note
from atb_core.errors import AtbError

if TYPE_CHECKING:
    from atb_core import ModelRunner, SamplingParams

Messages = list[dict[str, str]]

_HELP = """\
/help    this text
/reset   forget the conversation
/exit    leave, as Ctrl-D does
Ctrl-C stops an answer; what was said of it stays in the conversation."""


@click.command()
@click.argument("model")
@click.option("--system", metavar="TEXT", help="System message at the head of the conversation.")
@chat_options
@sampling_options
@model_options
def command(
    model: str, system: str | None, thinking: bool | None, chat_variables: tuple[str, ...], **options: Any
) -> None:
    """Talk with MODEL. /help lists what can be typed besides messages."""
    loading = {name: options.pop(name) for name in LOADING}
    sampling = sampling_params(**options)
    variables = template_variables(model, thinking, chat_variables)
    runner = load_runner(model, **loading)
    if variables and runner.tokenizer is not None:
        # Now, and not with every message.
        runner.tokenizer.check_chat_variables(variables)
    head: Messages = [{"role": "system", "content": system}] if system is not None else []
    messages = list(head)
    if sys.stdin.isatty():
        _enable_line_editing()
        note("/help for help, Ctrl-D to leave")
    while (line := _read_line()) is not None:
        text = line.strip()
        if text == "/exit":
            return
        if text == "/reset":
            messages = list(head)
            note("the conversation is forgotten")
        elif text == "/help":
            note(_HELP)
        elif text.startswith("/") and " " not in text:
            note(f"unknown command {text}; /help lists those there are")
        elif text:
            messages = _turn(runner, sampling, variables, messages, text)


def _turn(
    runner: ModelRunner, sampling: SamplingParams, variables: dict[str, Any], messages: Messages, text: str
) -> Messages:
    """One message and its answer. Returns the conversation; unchanged where the request was refused."""
    asked = [*messages, {"role": "user", "content": text}]
    answer: list[str] = []
    chunks = iter(runner.generate([asked], sampling, stream=True, chat_variables=variables))
    try:
        with TextStream() as stream:
            for chunk in chunks:
                stream.write(chunk.text)
                answer.append(chunk.text)
    except KeyboardInterrupt:
        note("(stopped)")
    except AtbError as error:
        note(f"error: {error}")
        return messages
    return [*asked, {"role": "assistant", "content": "".join(answer)}]


def _read_line() -> str | None:
    """The next line typed, None at its end; Ctrl-C at the prompt drops the line."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            return input(prompt)
        except KeyboardInterrupt:
            note("")
        except EOFError:
            if prompt:
                note("")
            return None


def _enable_line_editing() -> None:
    """Arrow keys and history for `input`, where Python was built with readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
