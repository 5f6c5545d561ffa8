# SPDX-License-Identifier: Apache-2.0
"""Carries an HTTP request from the ingress to a replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HttpCall:
    """One request with its whole body.

    Attributes:
        scope: What a replica's application needs of the ASGI scope.
        body: The body.
        prefix_keys: Keys of its prompt's beginnings.
    """

    scope: dict[str, Any]
    body: bytes
    prefix_keys: tuple[bytes, ...] = ()
