# SPDX-License-Identifier: Apache-2.0
"""The logger of models written for ATB-Models."""

import logging

from atb_core.errors import printable

__all__ = ["logger", "message_filter"]

logger = logging.getLogger("atb_core.models")


def message_filter(msg: str) -> str:
    """Returns a message on one line, with control characters escaped."""
    return printable(msg, 10_000)
