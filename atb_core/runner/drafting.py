# SPDX-License-Identifier: Apache-2.0
"""The place of methods that guess a request's next tokens, which the model checks several at a time: speculation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from atb_core.errors import RequestError, shown
from atb_core.extensions import Extensions
from atb_core.plugin_errors import plugin_errors


class Drafter(Protocol):
    """Guesses the next tokens of one request."""

    def draft(self, token_ids: Sequence[int], limit: int, cost: float) -> list[int]:
        """Returns guesses of the tokens that follow, none if that is unlikely to pay.

        Args:
            token_ids: All tokens of the request; those of earlier calls are their beginning.
            limit: Largest number of tokens.
            cost: Time of one more token in a step, relative to a step without guesses.
        """

    def note(self, num_drafted: int, num_accepted: int) -> None:
        """Takes how many of the guesses were right; those after the first wrong one say nothing."""


@dataclass(frozen=True)
class DraftMethod:
    """A way to guess tokens.

    Attributes:
        name: the `method` of `ModelRunner(speculative_config=)` that chooses it.
        configure: takes the other entries, and returns what makes a `Drafter`; RequestError for a faulty entry.
    """

    name: str
    configure: Callable[[Mapping[str, Any]], Callable[[], Drafter]]


DRAFT_METHODS: Extensions[DraftMethod] = Extensions("atb_draft_methods", DraftMethod, name="name")


def drafter_maker(config: Mapping[str, Any]) -> Callable[[], Drafter]:
    """Returns what makes the drafter of each request; RequestError for a method that no plugin has."""
    method = config.get("method", "ngram")
    what = f"the method {shown(method)} of speculative_config"
    contribution = DRAFT_METHODS.required(method, what, RequestError)
    with plugin_errors(contribution.owner):
        return contribution.value.configure({name: config[name] for name in config if name != "method"})
