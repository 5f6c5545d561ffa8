# SPDX-License-Identifier: Apache-2.0
"""Names that users write, each list once: distributions, backends, element types, the writers of graphs."""

from __future__ import annotations

import re

__all__ = ["BACKENDS", "DTYPES", "GRAPHS", "HOST_BACKENDS", "normalized_name"]

#: Backends that need nothing but a processor and run every element type.
HOST_BACKENDS = ("cpu", "reference")
BACKENDS = (*HOST_BACKENDS, "atb", "atb-sim")
#: Element types that models run in, as torch calls them.
DTYPES = ("float32", "float16", "bfloat16")
#: Writers of a model's graph: recorded from Python, or built by C++.
GRAPHS = ("python", "cpp")


def normalized_name(name: str) -> str:
    """Returns the normal form of a distribution's name: `Atb_Foo`, `atb.foo` and `atb-foo` are all `atb-foo`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
