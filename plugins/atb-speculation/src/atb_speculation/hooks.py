# SPDX-License-Identifier: Apache-2.0
"""Adds `ngram` to the methods of speculation."""

from __future__ import annotations

from atb_core.plugins import DraftMethod, hookimpl
from atb_speculation.ngram import configure


@hookimpl
def atb_draft_methods() -> list[DraftMethod]:
    """Returns the method that guesses from a request's own text."""
    return [DraftMethod("ngram", configure)]
