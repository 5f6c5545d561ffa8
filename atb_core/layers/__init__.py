# SPDX-License-Identifier: Apache-2.0
"""Layers of decoder models: weights by checkpoint name, and their application."""

from enum import Enum, auto

__all__ = ["InferenceMode"]


class InferenceMode(Enum):
    """The phase that a linear layer is recorded for, in code written for ATB-Models.

    Unquantized layers compute the same in each.
    """

    PREFILL = auto()
    DECODE = auto()
    ANY = auto()
