# SPDX-License-Identifier: Apache-2.0
"""Models: configurations, routers and the class that turns a recorded forward into one that runs."""

from enum import IntEnum

__all__ = ["TruncationSide"]


class TruncationSide(IntEnum):
    """The side on which an `InputBuilder` of ATB-Models may shorten a conversation; nothing here asks for it."""

    DEFAULT = 1
    RIGHT = 1
    LEFT = 2
