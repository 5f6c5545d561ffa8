# SPDX-License-Identifier: Apache-2.0
"""Names that users write: distributions, backends, element types and the languages that build graphs."""

from __future__ import annotations

import re

#: Backends that need no device and support every element type.
HOST_BACKENDS = ("cpu", "reference")
BACKENDS = (*HOST_BACKENDS, "atb", "atb-sim")
#: Element types of models, by torch's names.
DTYPES = ("float32", "float16", "bfloat16")
#: Languages that build a model's graph.
GRAPHS = ("python", "cpp")


def normalized_name(name: str) -> str:
    """Returns the normal form of a distribution's name: `Atb_Foo`, `atb.foo` and `atb-foo` are all `atb-foo`."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
