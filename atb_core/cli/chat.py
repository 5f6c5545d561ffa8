# SPDX-License-Identifier: Apache-2.0
"""`atb chat`: a conversation that the model remembers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.options import Session, chat_options, model_options, open_session, sampling_options
from atb_core.cli.output import TextStream, note, note_of_cut
from atb_core.errors import AtbError, ContextLengthError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atb_core import RequestOutput
    from atb_core.runner import StreamChunk

Messages = list[dict[str, str]]

_BLOCK = '"""'
_HELP = """\
/help    this text
/reset   forget the conversation
/exit    leave, as Ctrl-D does
\"\"\"      begins and ends a message of several lines; pasted lines are one message by themselves
Ctrl-C stops an answer, whose beginning stays in the conversation, or drops a message that is being typed."""


@click.command()
@click.argument("model")
@click.option("--system", metavar="TEXT", help="System message at the head of the conversation.")
@chat_options
@sampling_options
@model_options
def command(
    model: str, system: str | None, thinking: bool | None, chat_template_kwargs: tuple[str, ...], **options: Any
) -> None:
    """Talk with MODEL. /help lists the commands.

    A conversation that outgrows the context loses its oldest turns.
    """
    conversation = Conversation(open_session(model, thinking, chat_template_kwargs, **options), system)
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
    """Messages so far, and the model that answers the next one; `system` stays the first of them."""

    # Of the context, kept free for the next message and its answer.
    _FREE_SHARE = 0.25

    def __init__(self, session: Session, system: str | None) -> None:
        self._session = session
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
            note_of_cut(output, self._session.sampling)
            used = len(output.prompt_token_ids) + len(output.token_ids)
            self._is_long = used > (1 - self._FREE_SHARE) * self._session.runner.max_model_len

    def _ask(self, message: dict[str, str]) -> tuple[list[Messages], Iterator[StreamChunk]]:
        """Starts an answer; returns the turns that fit in its context, and the stream."""
        turns = self._turns[1:] if self._is_long else self._turns
        session = self._session
        while True:
            messages = [*self._head, *(said for turn in turns for said in turn), message]
            try:
                chunks = session.runner.chat(
                    messages, session.sampling, stream=True, chat_template_kwargs=session.template_kwargs
                )
            except ContextLengthError:
                if not turns:
                    raise
                turns = turns[1:]
                continue
            if dropped := len(self._turns) - len(turns):
                note(f"(the context is full: dropped the oldest {'turn' if dropped == 1 else f'{dropped} turns'})")
            return turns, iter(chunks)


def _read_message() -> str | None:
    """Returns the next message, `None` at the end of input; Ctrl-C drops what was typed of it."""
    while True:
        lines: list[str] = []
        try:
            lines.append(_read_line("> "))
            if not lines[0].lstrip().startswith(_BLOCK):
                return lines[0].strip()
            lines[0] = lines[0].lstrip()[len(_BLOCK) :]
            while not lines[-1].rstrip().endswith(_BLOCK):
                lines.append(_read_line(". "))
            lines[-1] = lines[-1].rstrip()[: -len(_BLOCK)]
        except KeyboardInterrupt:
            note("")
            continue
        except EOFError:
            if sys.stdin.isatty():
                note("")
            if not lines:
                return None
        return "\n".join(lines).strip()


def _read_line(prompt: str) -> str:
    return input(prompt if sys.stdin.isatty() else "")


def _enable_line_editing() -> None:
    """Enables arrow keys, history and pasted lines for `input`, if Python was built with readline."""
    try:
        import readline
    except ImportError:
        return
    # Python disables it; without it each pasted line is sent as a message of its own.
    readline.parse_and_bind("set enable-bracketed-paste on")
