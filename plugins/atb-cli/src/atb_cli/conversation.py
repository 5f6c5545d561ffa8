# SPDX-License-Identifier: Apache-2.0
"""A conversation with a model: its turns, and what fits of them into the context."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from atb_cli.answers import times_text
from atb_cli.output import TextStream, note, note_of_cut, writing
from atb_core.errors import AtbError, ContextLengthError
from atb_core.files import read_json

if TYPE_CHECKING:
    from atb_cli.options import Session
    from atb_core.runner.outputs import RequestOutput, StreamChunk

Message = dict[str, str]

# Of the context, kept free for the next message and its answer.
_FREE_SHARE = 0.25


class Conversation:
    """Turns so far, each a message and its answer, and the model that answers the next message.

    Attributes:
        session: The model and how it answers.
        system: System message before all turns, or `None`.
    """

    def __init__(self, session: Session, system: str | None) -> None:
        self.session = session
        self.system = system
        self.reset()

    def reset(self) -> None:
        """Forgets all turns."""
        self._turns: list[tuple[Message, Message]] = []
        self._last: RequestOutput | None = None

    def undo(self) -> None:
        """Forgets the last message and its answer; AtbError if there is none."""
        if not self._turns:
            raise AtbError("there is nothing to undo")
        self._turns.pop()
        self._last = None

    def messages(self, turns: list[tuple[Message, Message]] | None = None) -> list[Message]:
        """Returns the system message and the messages of `turns`, by default of all."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*head, *(said for turn in (self._turns if turns is None else turns) for said in turn)]

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
            if not "".join(said):
                return
        except AtbError as error:
            note(f"error: {error}")
            return
        self._turns = [*turns, (message, {"role": "assistant", "content": "".join(said)})]
        self._last = output
        if output is not None:
            note_of_cut(output, self.session.sampling)

    def _ask(self, message: Message) -> tuple[list[tuple[Message, Message]], Iterator[StreamChunk]]:
        """Starts an answer; returns the turns that fit into the context with it, and the stream."""
        is_long = self._used() > (1 - _FREE_SHARE) * self.session.runner.max_model_len
        turns = self._turns[1:] if is_long else self._turns
        while True:
            try:
                chunks = self.session.chat([*self.messages(turns), message])
            except ContextLengthError:
                if not turns:
                    raise
                turns = turns[1:]
                continue
            if dropped := len(self._turns) - len(turns):
                note(f"(the context is full: dropped the oldest {'turn' if dropped == 1 else f'{dropped} turns'})")
            return turns, chunks

    def _used(self) -> int:
        """Returns how many tokens of the context the last turn and all before it took; 0 before the first."""
        return 0 if self._last is None else len(self._last.prompt_token_ids) + len(self._last.token_ids)

    def stats(self) -> str:
        """Returns the times of the last answer and how full the context is; AtbError if there is no answer."""
        if self._last is None:
            raise AtbError("there is no complete answer yet")
        used = f"{self._used()} of {self.session.runner.max_model_len} tokens of the context"
        return f"{times_text(self._last)} | {used}"

    def save(self, path: Path) -> None:
        """Writes the conversation to a new file, readable by its owner alone, or over one that was saved before."""
        if path.exists():
            _saved_messages(path)
        text = json.dumps({"messages": self.messages()}, ensure_ascii=False, indent=2)
        with (
            writing(path),
            open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file,
        ):
            file.write(text + "\n")

    def load(self, path: Path) -> None:
        """Replaces the conversation by a saved one."""
        messages = _saved_messages(path)
        system = messages.pop(0)["content"] if messages and messages[0]["role"] == "system" else None
        roles = [message["role"] for message in messages]
        if roles != ["user", "assistant"] * (len(roles) // 2):
            raise AtbError(f"{path}: messages of user and assistant must follow each other")
        self.reset()
        self.system = system
        self._turns = list(zip(messages[::2], messages[1::2], strict=True))


def _saved_messages(path: Path) -> list[Message]:
    record = read_json(path, AtbError)
    if record is None:
        raise AtbError(f"there is no file {path}")
    messages = record.get("messages")
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        raise AtbError(f"{path} is no saved conversation")
    return messages


def _is_message(item: object) -> bool:
    return (
        isinstance(item, dict) and item.keys() == {"role", "content"} and all(isinstance(v, str) for v in item.values())
    )
