# SPDX-License-Identifier: Apache-2.0
"""Functions of ATB-Models that few models use, and tokenizers and input builders of its routers, for atb_core."""

from __future__ import annotations

from typing import Any


def ported(tokenizer: Any, input_builder: Any) -> Any:
    """Returns the tokenizer of a router written for ATB-Models as the runner uses it; see `ported_tokenizer`."""
    from atb_ops import ported_tokenizer

    return ported_tokenizer.ported(tokenizer, input_builder)
