# SPDX-License-Identifier: Apache-2.0
"""Which tests need which capability, and how a test is left out when it is not claimed."""

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
    """The capability that a test function needs."""
    return getattr(test, _NEEDS, None)


def unclaimed(model_type: str, capability: Capability) -> pytest.MarkDecorator:
    """Skips a test, saying that the family does not claim what it is about."""
    return pytest.mark.skip(reason=unclaimed_reason(model_type, capability))


def unclaimed_reason(model_type: str, capability: Capability) -> str:
    """The words in which a skipped test and the summary say it."""
    return f"{model_type} does not claim {capability.value}"
