# SPDX-License-Identifier: Apache-2.0
"""Plugins that are installed while a test runs, and settings that nobody but the test has made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from plugins.site_directory import Site

from atb_core.plugins.once import forget
from atb_core.plugins.records import clear_records

VARIABLES = ("ATB_PLUGINS", "ATB_NO_PLUGINS", "ATB_STRICT", "ATB_PLUGINS_PREFER", "ATB_PLUGIN_TIMEOUT", "ATB_CONFIG")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty directory on `sys.path`, and settings that say nothing."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    forget()
    clear_records()
    yield Site(path)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(path)):
            del sys.modules[name]
    forget()
    clear_records()


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test may write the settings file that is in force; it does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "settings" / "atb").mkdir(parents=True)
    return tmp_path / "settings" / "atb" / "config.toml"
