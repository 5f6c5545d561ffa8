# SPDX-License-Identifier: Apache-2.0
"""The interfaces that decide with the model which token comes next: masks, for structured output, and processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LogitsProcessor", "TokenMask"]


class TokenMask(Protocol):
    """Follows one completion and restricts its next token. An exception of it ends its request alone."""

    def next_mask(self) -> npt.NDArray[np.bool_] | None:
        """Returns [vocab] bool, true for tokens that may come next; `None` for all.

        It is called when the model has run: work that `accept` has started in a thread costs no time until then.
        """

    def accept(self, token_id: int) -> None:
        """Takes the chosen token, the one that ends the text included."""


class LogitsProcessor:
    """A `TokenMask` that changes the logits of one completion: a subclass is given as `token_mask`."""

    def process(self, token_ids: Sequence[int], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Returns the logits [vocab] by which the next token is chosen, before temperature and filters.

        Args:
            token_ids: The prompt and the completion so far.
            logits: With bias and penalties of the parameters; may be changed in place and returned.
        """
        raise NotImplementedError

    def next_mask(self) -> npt.NDArray[np.bool_] | None:
        """Returns `None`: all tokens may come next."""
        return None

    def accept(self, token_id: int) -> None:
        """Takes the chosen token; `process` gets it, too."""


#: Makes the mask of each completion of a call.
TokenMaskFactory: TypeAlias = Callable[[], TokenMask]
