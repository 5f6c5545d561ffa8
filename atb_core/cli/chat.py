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
    sampling_values,
    template_kwargs,
)
from atb_core.cli.output import TextStream, note, note_of_cut
from atb_core.errors import AtbError, ContextLengthError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atb_core import ModelRunner, RequestOutput, SamplingParams
    from atb_core.runner import StreamChunk

Messages = list[dict[str, str]]

_BLOCK = '"""'
_HELP = """\
/help    this text
/reset   forget the conversation
/exit    leave, as Ctrl-D does
\"\"\"      begins and ends a message of several lines; pasted lines are one message by themselves
Ctrl-C stops an answer; what was said of it stays in the conversation."""


@click.command()
@click.argument("model")
@click.option("--system", metavar="TEXT", help="System message at the head of the conversation.")
@chat_options
@sampling_options
@model_options
def command(
    model: str, system: str | None, thinking: bool | None, chat_template_kwargs: tuple[str, ...], **options: Any
) -> None:
    """Talk with MODEL. /help lists what can be typed besides messages.

    A conversation that outgrows the context loses its oldest turns.
    """
    loading = {name: options.pop(name) for name in LOADING}
    values = sampling_values(**options)
    variables = template_kwargs(model, thinking, chat_template_kwargs)
    runner = load_runner(model, **loading)
    if variables and runner.tokenizer is not None:
        # Now, and not with every message.
        runner.tokenizer.check_chat_template_kwargs(variables)
    conversation = Conversation(runner, sampling_params(runner, values), variables, system)
    if sys.stdin.isatty():
        _enable_line_editing()
        note("/help for help, Ctrl-D to leave")
    while (text := _read_message()) is not None:
        if text == "/exit":
            return
        if text == "/reset":
            conversation.reset()
            note("the conversation is forgotten")
        elif text == "/help":
            note(_HELP)
        elif text.startswith("/") and len(text.split()) == 1:
            note(f"unknown command {text}; /help lists those there are")
        elif text:
            conversation.answer(text)


class Conversation:
    """Messages so far, and the model that answers the next one.

    Args:
        runner: The model.
        sampling: Parameters of each answer.
        variables: Variables for the chat template.
        system: Message that stays at the head.
    """

    # Of the context, kept free for the next message and its answer.
    _FREE_SHARE = 0.25

    def __init__(
        self, runner: ModelRunner, sampling: SamplingParams, variables: dict[str, Any], system: str | None
    ) -> None:
        self._runner = runner
        self._sampling = sampling
        self._variables = variables
        self._head: Messages = [{"role": "system", "content": system}] if system is not None else []
        self.reset()

    def reset(self) -> None:
        """Forgets all but the system message."""
        self._turns: list[Messages] = []
        self._is_long = False

    def answer(self, text: str) -> None:
        """Prints the answer to a message. A message that is refused leaves the conversation as it was."""
        message = {"role": "user", "content": text}
        said: list[str] = []
        output: RequestOutput | None = None
        try:
            turns, chunks = self._ask(message)
            with TextStream() as stream:
                for chunk in chunks:
                    stream.write(chunk.text)
                    said.append(chunk.text)
                    output = chunk.output or output
        except KeyboardInterrupt:
            note("(stopped)")
            turns = self._turns if not said else turns
        except AtbError as error:
            note(f"error: {error}")
            return
        self._turns = [*turns, [message, {"role": "assistant", "content": "".join(said)}]]
        if output is not None:
            note_of_cut(output, self._sampling)
            used = len(output.prompt_token_ids) + len(output.token_ids)
            self._is_long = used > (1 - self._FREE_SHARE) * self._runner.max_model_len

    def _ask(self, message: dict[str, str]) -> tuple[list[Messages], Iterator[StreamChunk]]:
        """Starts an answer; returns the turns that it knows, without the oldest where all are too long."""
        turns = self._turns[1:] if self._is_long else self._turns
        while True:
            messages = [*self._head, *(said for turn in turns for said in turn), message]
            try:
                chunks = self._runner.chat(messages, self._sampling, stream=True, chat_template_kwargs=self._variables)
            except ContextLengthError:
                if not turns:
                    raise
                turns = turns[1:]
                continue
            if len(turns) < len(self._turns):
                note(f"(the context is full: the oldest {len(self._turns) - len(turns)} of the turns left it)")
            return turns, iter(chunks)


def _read_message() -> str | None:
    """Reads the next message typed, `None` at the end of input; a block in triple quotes is one message."""
    line = _read_line("> ")
    if line is None or not line.lstrip().startswith(_BLOCK):
        return line if line is None else line.strip()
    lines = [line.lstrip()[len(_BLOCK) :]]
    while not lines[-1].rstrip().endswith(_BLOCK):
        line = _read_line(". ")
        if line is None:
            return "\n".join(lines).strip()
        lines.append(line)
    lines[-1] = lines[-1].rstrip()[: -len(_BLOCK)]
    return "\n".join(lines).strip()


def _read_line(prompt: str) -> str | None:
    """Reads the next line, `None` at the end of input; Ctrl-C at the prompt drops the line."""
    if not sys.stdin.isatty():
        prompt = ""
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
    """Enables arrow keys, history and pasted lines for `input`, where Python was built with readline."""
    try:
        import readline
    except ImportError:
        return
    # Python turns it off; without it each pasted line is sent as a message of its own.
    readline.parse_and_bind("set enable-bracketed-paste on")
