# SPDX-License-Identifier: Apache-2.0
"""Functions of ATB-Models that few models use, and tokenizers and input builders of its routers, for atb_core."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def ported(tokenizer: Any, input_builder: Any) -> Any:
    """Returns the tokenizer of a router written for ATB-Models as the runner uses it; see `ported_tokenizer`."""
    from atb_ops import ported_tokenizer

    return ported_tokenizer.ported(tokenizer, input_builder)


def converted_tokenizer(directory: Path, name: str) -> bytes:
    """Returns a `tokenizer.json` that says the same as an older file; see `tokenizer_conversion`."""
    from atb_ops import tokenizer_conversion

    return tokenizer_conversion.convert(directory, name)
