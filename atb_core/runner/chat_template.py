# SPDX-License-Identifier: Apache-2.0
"""Chats to prompts, by the template that comes with a checkpoint, with bounded time and memory."""

from __future__ import annotations

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from atb_core.errors import RequestError, TokenizerError

__all__ = ["ChatTemplate", "Message", "end_template_process"]

Message = dict[str, Any]

_TIME_LIMIT = 10.0
_TEMPLATE_LIMIT = 1 << 20


class _Worker:
    """One :mod:`template_worker` process, started when first needed and again after it was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def _start(self) -> subprocess.Popen[bytes]:
        # The child finds the same packages as this process, and nothing in the current directory.
        root = Path(__file__).resolve().parents[2]
        paths = [str(root), *(path for path in sys.path if path and Path(path).is_absolute())]
        return subprocess.Popen(
            [sys.executable, "-c", "from atb_core.runner.template_worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            # Ctrl-C in a terminal goes to the whole group; it is this process's to handle.
            start_new_session=True,
        )

    def ask(self, request: bytes) -> dict[str, str] | None:
        """The answer, or ``None`` if the process died (its memory limit) on this request.

        Raises:
            TimeoutError: it took too long and was ended.
        """
        with self.lock:
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            try:
                line = self._exchange(self._process, request)
            except BaseException:
                self.end()
                raise
            if not line.endswith(b"\n"):
                self.end()
                return None
            answer: dict[str, str] = json.loads(line)
            return answer

    @staticmethod
    def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        deadline = time.monotonic() + _TIME_LIMIT
        received = bytearray()
        descriptor = process.stdout.fileno()
        while not received.endswith(b"\n"):
            readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                break
            received += piece
        return bytes(received)

    def end(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


# One for all templates of this process: they are seldom needed at the same time.
_worker = _Worker()
atexit.register(_worker.end)


def end_template_process() -> None:
    """Ends the process that renders templates, once it has rendered what it is at; the next chat starts it again."""
    with _worker.lock:
        _worker.end()


class ChatTemplate:
    """A checkpoint's template.

    Args:
        source: Jinja source.
        special_tokens: variables such as ``bos_token`` that the template may use.

    Raises:
        TokenizerError: the source is absurdly long.
    """

    def __init__(self, source: str, special_tokens: dict[str, str] | None = None) -> None:
        if len(source) > _TEMPLATE_LIMIT:
            raise TokenizerError(
                f"The chat template has {len(source):,} characters; at most {_TEMPLATE_LIMIT:,} are allowed"
            )
        self.source = source
        self._special_tokens = dict(special_tokens or {})

    def mentions(self, variable: str) -> bool:
        """Whether the name of a variable occurs in the template; one that does not cannot change anything."""
        return re.search(rf"\b{re.escape(variable)}\b", self.source) is not None

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The text of a conversation, as Hugging Face's ``apply_chat_template`` renders it.

        Raises:
            RequestError: the template refuses the conversation, or a value in it is not plain data.
            TokenizerError: the template is faulty, or takes more steps, time or memory than allowed.
        """
        values = {
            **self._special_tokens,
            **variables,
            "messages": messages,
            "tools": tools,
            "documents": documents,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            request = json.dumps({"template": _without_generation_marks(self.source), "variables": values})
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"A chat must consist of strings, numbers, lists and dicts: {error}") from None
        try:
            answer = _worker.ask(request.encode("ascii") + b"\n")
        except TimeoutError:
            raise _faulty(f"takes more than {_TIME_LIMIT:g} seconds") from None
        except OSError as error:
            raise TokenizerError(f"The process that renders chat templates cannot be started: {error}") from None
        if answer is None:
            raise _faulty("needs more memory than it is allowed")
        if "refused" in answer:
            raise RequestError(f"The model's chat template refuses this conversation: {answer['refused']}")
        if "error" in answer:
            raise _faulty(f"fails: {answer['error']}")
        return answer["text"]


def _faulty(what: str) -> TokenizerError:
    return TokenizerError(
        f"The model's chat template {what}",
        hint="Pass plain text instead of a chat, or give the model directory another chat_template.jinja.",
    )


def _without_generation_marks(source: str) -> str:
    """``{% generation %}`` blocks mark the assistant's words for training; rendering sees through them."""
    source = re.sub(r"(\{%[-+]?)\s*generation\s*([-+]?%\})", r"\1 if true \2", source)
    return re.sub(r"(\{%[-+]?)\s*endgeneration\s*([-+]?%\})", r"\1 endif \2", source)
