# SPDX-License-Identifier: Apache-2.0
"""Names of distributions as they are compared."""

from __future__ import annotations

import re

__all__ = ["normalized_name"]


def normalized_name(name: str) -> str:
    """The normal form of a distribution's name: `Atb_Foo`, `atb.foo` and `atb-foo` are all `atb-foo`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
