# SPDX-License-Identifier: Apache-2.0
"""Renders chat templates in a child process.

A template comes with a checkpoint and is an untrusted program. minijinja bounds its steps (*fuel*), its recursion and
its ranges, but a few steps are enough to double a string thirty times; so it runs in a process whose memory is limited
and whose parent ends it when it takes too long.
"""

from __future__ import annotations

import functools
import json
from datetime import datetime
from typing import Any

import minijinja

from atb_core.child import serve

# 150 messages of a long template take about 10,000 steps.
_FUEL = 5_000_000
# Bytes that a rendering may allocate, and characters it may produce.
_MEMORY_LIMIT = 512 << 20
_RENDERED_LIMIT = 16 << 20
_LONGEST_DATE_FORMAT = 256
_DEEPEST_INDENT = 32


class _RefusalError(Exception):
    """Reports that the template called `raise_exception`: it does not accept this conversation."""


def _raise_exception(message: object = "") -> None:
    raise _RefusalError(str(message))


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
    """Returns JSON as chat templates expect it: not escaped for HTML, keys in their own order."""
    width = indent if isinstance(indent, int) else len(indent or "")
    if width > _DEEPEST_INDENT:
        raise ValueError(f"an indent of {width} is too deep")
    separators = tuple(separators) if separators is not None else None  # type: ignore[assignment]
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@functools.lru_cache(maxsize=1)
def _environment(source: str) -> minijinja.Environment:
    return minijinja.Environment(
        templates={"chat_template": source},
        filters={"tojson": _to_json},
        globals={"raise_exception": _raise_exception, "strftime_now": _strftime_now},
        fuel=_FUEL,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_escape_callback=lambda name: False,
        pycompat=True,
    )


def _rendered(request: dict[str, Any]) -> dict[str, str]:
    try:
        text = _environment(request["template"]).render_template("chat_template", **request["variables"])
        if len(text) > _RENDERED_LIMIT:
            raise ValueError(f"it rendered {len(text):,} characters; at most {_RENDERED_LIMIT:,} are allowed")
        return {"text": text}
    except _RefusalError as error:
        return {"refused": str(error)}
    except Exception as error:
        # minijinja's message ends with a listing of the source; its first line says what and where.
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}


def main() -> None:
    """Answers requests until the parent ends."""
    serve(lambda request, answer: answer(_rendered(request)), memory=_MEMORY_LIMIT)
