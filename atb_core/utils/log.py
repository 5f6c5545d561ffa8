# SPDX-License-Identifier: Apache-2.0
"""The logger of models written for ATB-Models."""

import logging

__all__ = ["logger", "message_filter"]

logger = logging.getLogger("atb_core.models")


def message_filter(msg: str) -> str:
    """Returns a message on one line, with control characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in msg)
