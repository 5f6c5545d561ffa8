# SPDX-License-Identifier: Apache-2.0
"""A worker process finds the same plugins as the process that started it, or refuses to go on."""

from __future__ import annotations

import subprocess
import sys

import pytest
from site_directory import Site

from atb_core.errors import PluginError
from atb_core.plugins.resolved import child_environment, resolve, verify_resolved

CHILD = "from atb_core.plugins.registry import registry; print(registry().find('one').package)"


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A worker that routes to the family `one`."""
    return subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True, check=False)


def test_only_what_may_be_used_is_in_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-two")
    site.family("atb-one", "one")
    site.family("atb-two", "two")
    site.family("atb-three", "three", api=["9"])
    assert list(resolve(site.scan())["plugins"]) == ["atb-one"]


def test_a_worker_finds_what_its_parent_finds(site: Site) -> None:
    site.family("atb-one", "one")
    environment = child_environment()
    result = run(environment)
    assert result.stderr == ""
    assert result.stdout == "atb-one 1.0\n"


@pytest.mark.parametrize("change", ["upgraded", "removed", "added", "changed"])
def test_a_worker_that_finds_others_says_which(site: Site, change: str) -> None:
    info = site.family("atb-one", "one")
    environment = child_environment()
    if change in ("upgraded", "removed"):
        site.remove(info)
    if change == "upgraded":
        site.family("atb-one", "one", "1.1")
    elif change == "added":
        site.family("atb-two", "two")
    elif change == "changed":
        (info / "entry_points.txt").write_text("[atb_core.routers]\nother = atb_one:Router\n")
    says = {
        "upgraded": "atb-one 1.1 instead of 1.0",
        "removed": "atb-one is missing",
        "added": "atb-two 1.0 was not there",
        "changed": "atb-one 1.0 has other entry points",
    }[change]
    result = run(environment)
    assert result.returncode != 0
    assert f"this process finds other plugins than the one that started it: {says}" in result.stderr


def test_a_worker_with_another_preference_says_so(site: Site) -> None:
    site.family("atb-one", "one")
    result = run({**child_environment(), "ATB_PLUGINS_PREFER": "one=atb-one"})
    assert "plugins.prefer is {'one': 'atb-one'} instead of {}" in result.stderr


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"plugins": {"a": 1}, "prefer": {}}', '{"plugins": []}'])
def test_what_is_no_set_is_an_error_that_names_the_variable(
    site: Site, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ATB_RESOLVED_PLUGINS", text)
    with pytest.raises(PluginError, match="ATB_RESOLVED_PLUGINS holds no set of plugins"):
        verify_resolved()


def test_two_hundred_plugins_fit_into_an_environment_variable(site: Site) -> None:
    for number in range(200):
        site.family(f"atb-a-rather-long-name-{number:03}", f"a_rather_long_name_{number:03}")
    # One string of a new process's environment may have 128 KiB.
    assert len(child_environment()["ATB_RESOLVED_PLUGINS"]) < 1 << 15
