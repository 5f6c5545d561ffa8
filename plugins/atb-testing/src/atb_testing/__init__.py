# SPDX-License-Identifier: Apache-2.0
"""The conformance kit for authors of model families, and its parts: tiny checkpoints, a driver, comparisons.

A test module of a family:

    from atb_testing import Capability, FamilyTests

    class TestFoo(FamilyTests):
        model_type = "foo"
        capabilities = frozenset({Capability.GROUPED_QUERY})

Everything is imported on first use, because every run of pytest loads the package where it is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_testing.capabilities import Capability
    from atb_testing.checkpoints import load_reference, tiny_checkpoint
    from atb_testing.conformance import ErrorReport, assert_conforms, compare_logits
    from atb_testing.driver import PagedDriver, available_backends, open_model
    from atb_testing.family import FamilyTests
    from atb_testing.overriding import overrides

__all__ = [
    "Capability",
    "ErrorReport",
    "FamilyTests",
    "PagedDriver",
    "assert_conforms",
    "available_backends",
    "compare_logits",
    "load_reference",
    "open_model",
    "overrides",
    "tiny_checkpoint",
]

_HOME = {
    "Capability": "capabilities",
    "ErrorReport": "conformance",
    "FamilyTests": "family",
    "PagedDriver": "driver",
    "assert_conforms": "conformance",
    "available_backends": "driver",
    "compare_logits": "conformance",
    "load_reference": "checkpoints",
    "open_model": "driver",
    "overrides": "overriding",
    "tiny_checkpoint": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
