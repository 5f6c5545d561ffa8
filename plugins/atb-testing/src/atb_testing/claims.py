# SPDX-License-Identifier: Apache-2.0
"""Marks tests that need a capability, and skips them where it is not claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from atb_testing.capabilities import Capability

Test = TypeVar("Test", bound=Callable[..., Any])
_NEEDS = "_atb_needs"


def needs(capability: Capability) -> Callable[[Test], Test]:
    """Marks a test that runs only for families that claim `capability`."""

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, capability)
        return test

    return mark


def needed_by(test: object) -> Capability | None:
    """Returns the capability that a test function needs, if any."""
    return getattr(test, _NEEDS, None)


def unclaimed(model_type: str, capability: Capability) -> pytest.MarkDecorator:
    """Returns the marker that skips a test for want of a claim."""
    return pytest.mark.skip(reason=unclaimed_reason(model_type, capability))


def unclaimed_reason(model_type: str, capability: Capability) -> str:
    """Returns the reason of such a skip, by which the summary recognises it."""
    return f"{model_type} does not claim {capability.value}"
