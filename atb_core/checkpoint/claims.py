# SPDX-License-Identifier: Apache-2.0
"""Asks the contributions of plugins which of them is responsible for something."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from atb_core.extensions import Contribution, Extensions

__all__ = ["claimant"]

T = TypeVar("T")


def claimant(
    slot: Extensions[T], claims: Callable[[T], bool], describe: Callable[[T], str], subject: str
) -> Contribution[T] | None:
    """Returns the contribution that claims `subject`, `None` if none does.

    A contribution that fails to answer is recorded and left out, so that it keeps no other from it.

    Args:
        claims: asks a contribution.
        describe: names a contribution in messages.
        subject: for messages.

    Raises:
        PluginError: several contributions claim it.
    """
    claiming = set()
    for each in slot.all():
        try:
            if claims(each.value):
                claiming.add(id(each.value))
        except Exception as error:
            slot.failed(each.owner, f"{describe(each.value)}, asked about {subject}", error)
    return slot.only(lambda value: id(value) in claiming, subject)
