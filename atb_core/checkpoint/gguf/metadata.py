# SPDX-License-Identifier: Apache-2.0
"""Reads a GGUF file's metadata, an untrusted input, with a check of each entry's type."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atb_core.checkpoint.gguf.header import GgufHeader
from atb_core.errors import WeightsError


class MetadataReader:
    """Reads entries that stand under the name of the file's architecture, such as `block_count`.

    Attributes:
        architecture: the file's `general.architecture`.

    Raises:
        WeightsError: the file names no architecture, or is one part of several. So does every method for an entry
            that is missing without a default, or of another type.
    """

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self.path = path
        self.header = header
        parts = header.metadata.get("split.count", 0)
        if type(parts) is int and parts > 1:
            raise self.fail(
                f"the file is one of {parts} parts of a split model",
                "Merge the parts first: llama-gguf-split --merge FIRST_PART OUTPUT.",
            )
        self.architecture: str = self._checked(
            "general.architecture", None, lambda v: isinstance(v, str) and v != "", "a text"
        )

    def fail(self, cause: str, hint: str | None = None) -> WeightsError:
        """Returns the error for `cause`."""
        return WeightsError(f"{self.path}: {cause}", hint)

    def key(self, name: str) -> str:
        """Returns the full key of the architecture's entry `name`."""
        return f"{self.architecture}.{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the entry as it is stored."""
        return self.header.metadata.get(self.key(name), default)

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a positive integer below 2^31."""
        value: int = self._checked(
            self.key(name), default, lambda v: type(v) is int and 0 < v < 1 << 31, "a positive size"
        )
        return value

    def number(self, name: str, default: float) -> float:
        """Returns a positive finite number."""
        return float(self._checked(self.key(name), default, _is_positive, "a positive number"))

    def token_id(self, key: str, vocab_size: int) -> int:
        """Returns a token id; `key` is the full key."""
        kind = f"an id below the vocabulary's {vocab_size}"
        value: int = self._checked(key, None, lambda v: type(v) is int and 0 <= v < vocab_size, kind)
        return value

    def _checked(self, key: str, default: Any, accept: Callable[[Any], bool], kind: str) -> Any:
        value = self.header.metadata.get(key, default)
        if value is None:
            raise self.fail(f"metadata {key!r} is missing", "The file is not a complete language model.")
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        elif isinstance(value, list):
            raise self.fail(f"metadata {key!r} differs from layer to layer, which is not supported")
        if not accept(value):
            raise self.fail(f"metadata {key!r} is {str(value)[:60]!r}, not {kind}")
        return value


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0
