# SPDX-License-Identifier: Apache-2.0
"""Reads JSON of a checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from atb_core.errors import AtbError

# Configurations are a few kilobytes; the vocabulary is read by the tokenizer library.
_LARGEST = 32 << 20


def read_json_object(path: Path, error: type[AtbError]) -> dict[str, Any] | None:
    """Reads the object in a JSON file; returns `None` if there is no such file.

    Args:
        path: the file.
        error: raised if it is too large, not JSON, or not an object.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise error(f"{path} is larger than {_LARGEST >> 20} MiB, which no configuration is")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise error(f"{path} cannot be read: {problem}", hint="Fetch the file again.") from None
    if not isinstance(value, dict):
        raise error(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def parse_table(raw: bytes | bytearray) -> dict[str, Any]:
    """Parses a JSON object that names tensors: no key may appear twice in an object, no number may be NaN or infinite.

    Raises:
        ValueError, RecursionError: it is no such object.
    """
    table = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    if not isinstance(table, dict):
        raise ValueError("it is not a JSON object")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has the key {twice[:200]!r} twice")
    return table


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it contains {text}")
