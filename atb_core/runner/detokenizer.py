# SPDX-License-Identifier: Apache-2.0
"""Text of one sequence while it grows: only what is final is shown, and it ends at a stop string."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from atb_core.runner.text_decoder import TextDecoder


class Detokenizer:
    """Shows text once no later token can change it or take it back.

    Two things are held back: an incomplete character (by the decoder) and an end of the text that may be the beginning
    of a stop string. The pieces returned, joined, are always `text`, whatever the cut into tokens.

    Stop strings are not empty. The first one to be completed ends the text before it; of two completed by the same
    character, the longer. A special token that is left out of the text still takes part in stop strings.

    Attributes:
        stopped_by: Stop string that ended the text.
    """

    def __init__(self, decoder: TextDecoder, stop: Sequence[str] = ()) -> None:
        self._decoder = decoder
        self._stop = tuple(stop)
        self._pieces: list[str] = []
        # Text that is held back, and for each of its characters whether it belongs to the text.
        self._held, self._visible = "", b""
        self.stopped_by: str | None = None

    @property
    def text(self) -> str:
        """Everything shown so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def push(self, token_id: int, may_stop: bool = True) -> str:
        """Takes the next token; returns the text that became certain.

        Args:
            token_id: The token.
            may_stop: Looks for stop strings. While it is False, no text is part of a stop string, not even of one
                that later text completes.
        """
        new = self._decoder.push(token_id)
        if may_stop or self.stopped_by is not None:
            return self._take(new, self._decoder.hidden.get(token_id, ""))
        if new:
            self._pieces.append(new)
        return new

    def finish(self) -> str:
        """Returns the text that was held back, after the last token; empty if a stop string ended the text."""
        if self.stopped_by is not None:
            return ""
        return self._take(self._decoder.finish()) + self._show(len(self._held))

    def _take(self, new: str, hidden: str = "") -> str:
        if self.stopped_by is not None:
            return ""
        if not self._stop:
            hidden = ""
        self._held += new + hidden
        self._visible += b"\1" * len(new) + b"\0" * len(hidden)
        # A stop string can only begin in what was held back, so nothing before it is searched again.
        cut = self._find_stop(self._held)
        if cut is None:
            return self._show(len(self._held) - possible_beginning(self._held, self._stop))
        shown = self._show(cut)
        self._held, self._visible = "", b""
        return shown

    def _show(self, length: int) -> str:
        """Moves the first characters from what is held back to the text, and returns those that belong to it."""
        shown = "".join(itertools.compress(self._held[:length], self._visible))
        self._held, self._visible = self._held[length:], self._visible[length:]
        if shown:
            self._pieces.append(shown)
        return shown

    def _find_stop(self, pending: str) -> int | None:
        """Returns the start of the stop string that is completed first, and sets `stopped_by`."""
        starts = [(pending.find(stop), stop) for stop in self._stop]
        completed = [(start + len(stop), start, stop) for start, stop in starts if start >= 0]
        if not completed:
            return None
        _, start, self.stopped_by = min(completed)
        return start


def possible_beginning(text: str, marks: Sequence[str]) -> int:
    """Returns the length of the longest end of `text` that is a beginning of one of `marks`."""
    longest = max(map(len, marks), default=1) - 1
    for start in range(max(0, len(text) - longest), len(text)):
        end = text[start:]
        if any(mark.startswith(end) for mark in marks):
            return len(end)
    return 0
