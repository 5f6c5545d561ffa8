# SPDX-License-Identifier: Apache-2.0
"""Lets a family replace a standard test with a reason, which is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from atb_core.errors import PluginError

Test = TypeVar("Test", bound=Callable[..., Any])
_REASON = "_atb_overrides_because"
#: The test that finds silent overrides cannot itself be replaced.
GUARD = "test_no_standard_test_is_silently_overridden"


def overrides(reason: str) -> Callable[[Test], Test]:
    """Marks a method of a family's test class that replaces a standard test of the same name.

    Args:
        reason: a sentence that the summary and the certificate print beside the test's name.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise PluginError(
            "overrides() needs a reason", hint='Write @overrides("why the standard test does not apply").'
        )

    def mark(test: Test) -> Test:
        setattr(test, _REASON, reason)
        return test

    return mark


def standard_tests(suite: type) -> dict[str, Any]:
    """Returns the tests of `suite` (FamilyTests) by name."""
    return {name: getattr(suite, name) for name in dir(suite) if name.startswith("test_")}


def override_reasons(cls: type, suite: type) -> dict[str, str | None]:
    """Returns the standard tests that `cls` replaces, with its reason, `None` without one."""
    replaced = {}
    for name, standard in standard_tests(suite).items():
        own = getattr(cls, name, None)
        if own is not standard:
            replaced[name] = getattr(own, _REASON, None)
    return replaced
