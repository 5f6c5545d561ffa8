# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several modules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from runner.fake_runner import fake_runners

from atb_core import ModelRunner


@pytest.fixture(params=[True, False], ids=["mixed steps", "whole prompts"])
def open_runner(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[..., ModelRunner]:
    """Opens a runner on the fake model, which has mixed steps or not."""
    return fake_runners(monkeypatch, request.param)
