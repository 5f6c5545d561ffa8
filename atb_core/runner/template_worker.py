# SPDX-License-Identifier: Apache-2.0
"""The process that renders chat templates.

A template comes with a checkpoint and is a program by a stranger. minijinja bounds its steps (*fuel*), its
recursion and its ranges, but a few steps are enough to double a string thirty times; so it runs in a child process
whose memory is limited, and whose parent ends it when it takes too long.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from atb_core.child import serve

__all__ = ["FUEL", "MEMORY_LIMIT", "RENDERED_LIMIT", "Renderer", "main"]

# 150 messages of a long template take about 10,000 steps.
FUEL = 5_000_000
# Bytes that a rendering may allocate, and characters it may produce.
MEMORY_LIMIT = 512 << 20
RENDERED_LIMIT = 16 << 20
_LONGEST_DATE_FORMAT = 256
_DEEPEST_INDENT = 32


class Refusal(Exception):
    """The template itself called ``raise_exception``: it does not accept this conversation."""


def _raise_exception(message: object = "") -> None:
    raise Refusal(str(message))


def _strftime_now(pattern: str) -> str:
    if len(pattern) > _LONGEST_DATE_FORMAT:
        raise ValueError("the date format is too long")
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as chat templates expect it: not escaped for HTML, keys in their own order."""
    width = indent if isinstance(indent, int) else len(indent or "")
    if width > _DEEPEST_INDENT:
        raise ValueError(f"an indent of {width} is too deep")
    separators = tuple(separators) if separators is not None else None  # type: ignore[assignment]
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Renderer:
    """Renders one template with a bounded number of steps."""

    def __init__(self, source: str) -> None:
        import minijinja

        self._environment = minijinja.Environment(
            templates={"chat_template": source},
            filters={"tojson": _to_json},
            globals={"raise_exception": _raise_exception, "strftime_now": _strftime_now},
            fuel=FUEL,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_escape_callback=lambda name: False,
            pycompat=True,
        )

    def render(self, variables: dict[str, Any]) -> str:
        """The text; raises Refusal, or minijinja's TemplateError, or ValueError if it is far too long."""
        text = self._environment.render_template("chat_template", **variables)
        if len(text) > RENDERED_LIMIT:
            raise ValueError(f"it rendered {len(text):,} characters; at most {RENDERED_LIMIT:,} are allowed")
        return text


def _answer(renderers: dict[str, Renderer], request: dict[str, Any]) -> dict[str, str]:
    source = request["template"]
    try:
        if source not in renderers:
            renderers.clear()
            renderers[source] = Renderer(source)
        return {"text": renderers[source].render(request["variables"])}
    except Refusal as error:
        return {"refused": str(error)}
    except Exception as error:
        # minijinja's message ends with a listing of the source; its first line says what and where.
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}


def main() -> None:
    """Answers requests until the parent ends."""
    import minijinja  # noqa: F401 - before the limit is set

    renderers: dict[str, Renderer] = {}
    serve(lambda request, answer: answer(_answer(renderers, request)), memory=MEMORY_LIMIT)
