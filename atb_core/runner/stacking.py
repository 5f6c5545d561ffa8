# SPDX-License-Identifier: Apache-2.0
"""Options of a runner that exclude each other: declared here, so that all others can be tested together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atb_core.errors import BackendUnavailableError

#: Why two options exclude each other, and what to do. An option is an argument, or the beginning of one with a value.
APART: Mapping[tuple[str, str], tuple[str, str]] = {
    ("graph='cpp'", "backend='reference'"): (
        "backend='reference' interprets graphs that Python records, and none that C++ builds",
        "Use backend='cpu', or graph='python'.",
    ),
    ("graph='cpp'", "lora_modules"): ("graphs that C++ builds have no adapters", "Use graph='python'."),
    ("quantization", "graph='cpp'"): ("graph='cpp' runs no quantised weights", "Use graph='python'."),
    ("kv_cache_dtype='int8'", "backend='atb"): (
        "ATB's caches of int8 have a fixed scale for each channel, not one for each token and head",
        "Use backend='cpu'.",
    ),
    ("tensor_parallel_size", "graph='cpp'"): ("graph='cpp' runs no divided models", "Use graph='python'."),
}


def check_together(**given: Any) -> None:
    """Raises BackendUnavailableError, with the reason, if two of the options that are given exclude each other.

    Args:
        given: values by argument; `None`, 1 and what is empty stand for an option that is not used.
    """
    used = [f"{name}={value!r:.100}" for name, value in given.items() if value and value != 1]
    for (one, other), (reason, hint) in APART.items():
        shown = next((each for each in used if each.startswith(one)), None)
        if shown and any(each.startswith(other) for each in used):
            raise BackendUnavailableError(f"{shown}: {reason}", hint=hint)
