# SPDX-License-Identifier: Apache-2.0
"""`atb chat`: a conversation that the model remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from atb_cli.conversation import Conversation
from atb_cli.line_input import line_editing, read_message
from atb_cli.options import chat_options, model_argument, model_options, open_session, sampling_options
from atb_cli.output import aligned, note
from atb_core.errors import AtbError
from atb_core.files import user_path

# How much of its letters a message that begins with / shares with a command that is meant.
_MISSPELT = 0.8
_LEAVE = ("/exit", "/quit", "exit", "quit")
# A chat shows one answer, and no log probabilities.
_NOT_IN_CHATS = ("n", "logprobs", "prompt_logprobs")


@click.command()
@model_argument
@click.option("--system", "-s", metavar="TEXT", help="System message at the head of the conversation.")
@chat_options
@sampling_options
@model_options
def command(model: str, system: str | None, **options: Any) -> None:
    """Talk with MODEL. /help lists the commands.

    A conversation that outgrows the context loses its oldest turns.
    """
    session = open_session(model, **options)
    session.check_chats()
    conversation = Conversation(session, system)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        note("/help for help, Ctrl-D to leave")
    with line_editing() if is_terminal else contextlib.nullcontext():
        while (text := read_message()) is not None and text not in _LEAVE:
            name, _, argument = text.partition(" ")
            if name in _COMMANDS:
                try:
                    _COMMANDS[name](conversation, argument.strip())
                except AtbError as error:
                    note(f"error: {error}")
                except OSError as error:
                    note(f"error: {error.filename}: {error.strerror}")
            elif re.fullmatch(r"/\w*", text) or get_close_matches(name, _COMMANDS, 1, _MISSPELT):
                near = get_close_matches(name, _COMMANDS, 1)
                note(
                    f"unknown command {name}; {f'did you mean {near[0]}? ' if near else ''}/help lists those there are"
                )
            elif text:
                conversation.answer(text)


def _help(_conversation: Conversation, _argument: str) -> None:
    note(_HELP)


def _reset(conversation: Conversation, _argument: str) -> None:
    conversation.reset()
    note("the conversation is forgotten")


def _undo(conversation: Conversation, _argument: str) -> None:
    conversation.undo()
    note("the last message and its answer are forgotten")


def _system(conversation: Conversation, argument: str) -> None:
    if argument:
        conversation.system = None if argument in ("-", '""') else argument
    note(f"system message: {conversation.system or 'none'}")


def _set(conversation: Conversation, argument: str) -> None:
    name, _, text = argument.partition(" ")
    session = conversation.session
    values = {key: value for key, value in vars(session.sampling).items() if key not in _NOT_IN_CHATS}
    if not name:
        note(aligned(values))
        return
    if name not in values:
        raise AtbError(f"there is no parameter {name!r}; there are {', '.join(values)}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    session.sampling = dataclasses.replace(session.sampling, **{name: value})
    note(f"{name} is {getattr(session.sampling, name)!r}")


def _stats(conversation: Conversation, _argument: str) -> None:
    note(conversation.stats())


def _save(conversation: Conversation, argument: str) -> None:
    path = _path(argument)
    conversation.save(path)
    note(f"saved to {path}")


def _load(conversation: Conversation, argument: str) -> None:
    path = _path(argument)
    conversation.load(path)
    note(f"loaded {len(conversation.messages())} messages from {path}")


def _path(argument: str) -> Path:
    if not argument:
        raise AtbError("name a file, for example /save paris.json")
    return user_path(argument)


_COMMANDS: dict[str, Callable[[Conversation, str], None]] = {
    "/help": _help,
    "/reset": _reset,
    "/undo": _undo,
    "/system": _system,
    "/set": _set,
    "/stats": _stats,
    "/save": _save,
    "/load": _load,
}
_HELP = """\
/help              this text
/reset             forget the conversation
/undo              forget the last message and its answer
/system [TEXT]     show the system message, or change it; - removes it
/set [NAME VALUE]  show the sampling parameters, or change one: /set temperature 0.7
/stats             how long the last answer took, and how full the context is
/save FILE         write the conversation to a file
/load FILE         replace the conversation by a saved one
/exit, exit, quit  leave, as Ctrl-D does
\"\"\"                begins and ends a message of several lines; pasted lines are one message by themselves
Ctrl-C stops an answer, whose beginning stays in the conversation, or drops a message that is being typed."""
