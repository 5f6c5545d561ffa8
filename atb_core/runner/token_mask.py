# SPDX-License-Identifier: Apache-2.0
"""The interface that restricts the tokens of a completion one by one, for structured output."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["TokenMask"]


class TokenMask(Protocol):
    """Follows one completion and restricts its next token. An exception of it ends its request alone."""

    def next_mask(self) -> npt.NDArray[np.bool_] | None:
        """Returns [vocab] bool, true for tokens that may come next; `None` for all.

        It is called when the model has run: work that `accept` has started in a thread costs no time until then.
        """

    def accept(self, token_id: int) -> None:
        """Takes the chosen token, the one that ends the text included."""


#: Makes the mask of each completion of a call.
TokenMaskFactory: TypeAlias = Callable[[], TokenMask]
