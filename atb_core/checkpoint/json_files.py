# SPDX-License-Identifier: Apache-2.0
"""Reads small JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from atb_core.errors import AtbError

__all__ = ["read_json_object"]

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
