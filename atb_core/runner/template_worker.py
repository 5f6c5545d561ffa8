# SPDX-License-Identifier: Apache-2.0
"""Renders chat templates in a child process.

A template comes with a checkpoint and is an untrusted program. It runs in jinja2's sandbox, as in transformers, for
which templates are written; with fewer attributes than the sandbox allows; and in a process with limits on its memory
that can open nothing any more, and that its parent ends when it takes too long.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, Undefined, nodes, runtime, utils
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atb_core.child import serve
from atb_core.runner.chat_template import MEMORY_LIMIT

# Characters that a rendering may produce.
_RENDERED_LIMIT = 16 << 20


class _RefusalError(TemplateError):
    """Reports that the template called `raise_exception`: it does not accept this conversation."""


class _Parts(list[Any]):
    """Content of a message in parts; notes whether the template looked into it."""

    seen = False

    def __iter__(self) -> Iterator[Any]:
        _Parts.seen = True
        return super().__iter__()

    def __getitem__(self, key: Any) -> Any:
        # jinja2 looks for attributes here, too.
        _Parts.seen |= not isinstance(key, str)
        return super().__getitem__(key)


# The only types whose attributes a template may read: plain data, and jinja2's own objects.
_OPEN_TYPES = (
    (str, int, float, list, tuple, dict, range, Undefined)
    + (runtime.LoopContext, runtime.Macro, runtime.TemplateReference)
    + (utils.Namespace, utils.Cycler, utils.Joiner)
)


class _Generation(Extension):
    """Accepts `{% generation %}`, which marks the assistant's words for training, and renders what is in the block."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        """Returns the block as a call, which makes a scope of it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

    def render(self, caller: Callable[[], str]) -> str:
        """Returns what the body renders."""
        return caller()


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return isinstance(obj, _OPEN_TYPES) and super().is_safe_attribute(obj, attr, value)


def _raise_exception(message: object = "") -> None:
    raise _RefusalError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Returns JSON as chat templates expect it: not escaped for HTML, keys in their own order."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=4)
def _template(source: str) -> Any:
    return _Environment().from_string(source)


def _rendered(request: dict[str, Any]) -> dict[str, str]:
    _Parts.seen = False
    messages = request["variables"]["messages"]
    in_parts = [each for each in messages if isinstance(each, dict) and _is_in_parts(each.get("content"))]
    for message in in_parts:
        message["content"] = _Parts(message["content"])
    answer = _render_once(request)
    if in_parts and (not _Parts.seen or "error" in answer):
        # The template knows only texts.
        for message in in_parts:
            message["content"] = "\n".join(part.get("text", "") for part in message["content"])
        answer = _render_once(request)
    return answer


def _is_in_parts(content: Any) -> bool:
    parts = content if isinstance(content, list) else [None]
    return all(isinstance(part, dict) and isinstance(part.get("text", ""), str) for part in parts)


def _render_once(request: dict[str, Any]) -> dict[str, str]:
    try:
        text = _template(request["template"]).render(request["variables"])
        if len(text) > _RENDERED_LIMIT:
            raise ValueError(f"it rendered {len(text):,} characters; at most {_RENDERED_LIMIT:,} are allowed")
        return {"text": text}
    except _RefusalError as error:
        return {"refused": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        line, trace = getattr(error, "lineno", None), error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename in ("<template>", "<unknown>"):
                line = trace.tb_lineno
            trace = trace.tb_next
        where = "" if line is None else f" (chat_template:{line})"
        return {"error": f"{str(error).strip()[:1000] or type(error).__name__}{where}"}


def main() -> None:
    """Answers requests until the parent ends."""
    # What jinja2 imports when it is first needed, and the time zone: the process opens no file later.
    for module in ("encodings.unicode_escape", "html", "jinja2.constants", "jinja2.debug", "pprint", "textwrap"):
        importlib.import_module(module)
    _strftime_now("%c")
    serve(lambda request, answer: answer(_rendered(request)), memory=MEMORY_LIMIT)
