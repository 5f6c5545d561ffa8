# SPDX-License-Identifier: Apache-2.0
"""A plugin's requirements are compared with what is installed, and a refusal gives the command that helps."""

from __future__ import annotations

import pytest
from site_directory import Site

from atb_core.plugins import admission
from atb_core.plugins.admission import incompatibility
from atb_core.plugins.records import Refusal, Status


def problem(site: Site) -> Refusal | None:
    """Returns why the only plugin of a site does not fit what is installed there."""
    return incompatibility(site.one())


def refused(reason: str, fix: str) -> Refusal:
    """Returns the refusal of an incompatible plugin."""
    return Refusal(Status.INCOMPATIBLE, reason, fix)


HOSTILE = {
    "a number in a version": f"numpy>={'9' * 9000}",
    "a number in a marker": f"numpy; python_version < '{'9' * 9000}'",
    "a number that packaging would compare": f"atb-core!={'9' * 40}",
    "a long list": "numpy>=1" + ",>=1" * 100_000,
    "half of a marker": "numpy; python_version",
    "a marker that compares what cannot be compared": "numpy; python_version ~= 'x'",
    "no name": ">=1",
    "an address that is none": "numpy @ \x1b[2J",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_requirement_of_any_text_is_refused_in_one_short_sentence(site: Site, text: str) -> None:
    site.metadata("atb-core", "0.1.0")
    site.family("atb-foo", "foo", requires=[text.replace("\n", " ")])
    found = problem(site)
    assert found is not None
    assert found.reason.isprintable() and len(found.reason) < 400
    assert "invalid requirement" in found.reason


def test_nested_brackets_end_nothing(site: Site) -> None:
    site.family("atb-foo", "foo", requires=[f"absent; {'(' * 300}python_version > '3'{')' * 300}"])
    found = problem(site)
    assert found is not None and found.reason.isprintable() and len(found.reason) < 400
    # Versions of packaging differ in how deep they read.
    assert found.reason == "requires absent, which is not installed" or "invalid requirement" in found.reason


@pytest.mark.parametrize("version", ["9" * 9000, "x\x1b[2J", "1!2"])
def test_an_installed_version_of_any_text_ends_nothing(site: Site, version: str) -> None:
    site.metadata("atb-core", "0.1.0")
    info = site.metadata("odd-thing", "1.0")
    (info / "METADATA").write_text(f"Name: odd-thing\nVersion: {version}\n")
    info.rename(info.with_name("odd_thing.dist-info"))
    site.family("atb-foo", "foo", requires=["odd-thing>=0.5"])
    found = problem(site)
    assert found is None or found.reason.isprintable()


@pytest.mark.parametrize(
    ("core", "requires"),
    [
        ("0.1.0", "atb-core>=0.1,<0.2"),
        ("0.1.7.post1", "atb-core~=0.1.0"),
        ("0.1.0+local.3", "atb-core==0.1.0"),
        ("0.2.0.dev3", "atb-core>=0.2,<0.3"),
        ("0.2.0rc1", "atb-core>=0.2,<0.3"),
        ("0.2.0rc1", "atb-core>=0.2rc1,<0.3"),
        ("0.1.1.dev1", "Atb_Core (>=0.1,<0.2)"),
        ("0.1.0", "atb-core"),
        ("0.1.0", "atb-core[hf]>=0.1"),
    ],
)
def test_a_core_within_the_range_fits_and_so_does_a_prerelease_of_one(site: Site, core: str, requires: str) -> None:
    site.metadata("atb-core", core)
    site.family("atb-foo", "foo", requires=[requires])
    assert problem(site) is None


@pytest.mark.parametrize(
    ("core", "requires", "fix"),
    [
        ("0.1.0", "atb-core>=0.2,<0.3", "pip install 'atb-core>=0.2,<0.3'"),
        ("0.1.0", "atb-core<0.3,>=0.2", "pip install 'atb-core>=0.2,<0.3'"),
        ("0.1.0", "atb-core~=0.2.1", "pip install 'atb-core~=0.2.1'"),
        ("0.1.0", "atb-core!=0.1.0", "pip install 'atb-core!=0.1.0'"),
        ("0.1.0", "atb-core>=0.2 ; python_version > '3'", "pip install 'atb-core>=0.2'"),
        ("0.2.0", "atb-core>=0.1,<0.2", "pip install --upgrade atb-foo"),
        ("0.2.0.dev1", "atb-core>=0.1,<0.2", "pip install --upgrade atb-foo"),
        ("0.3.0", "atb-core==0.2.*", "pip install --upgrade atb-foo"),
        ("0.3.0", "atb-core~=0.2.1", "pip install --upgrade atb-foo"),
        ("0.3.0", "atb-core===dev", "pip install atb-core===dev"),
        ("0.1.0", "atb-core==0.2.*", "pip install 'atb-core==0.2.*'"),
    ],
)
def test_another_core_is_refused_with_the_command_that_helps(site: Site, core: str, requires: str, fix: str) -> None:
    site.metadata("atb-core", core)
    site.family("atb-foo", "foo", requires=[requires])
    found = problem(site)
    assert found is not None
    assert found.reason.endswith(f"and atb-core {core} is installed")
    assert found.fix == fix


def test_a_core_without_metadata_has_no_version_to_object_to(site: Site) -> None:
    site.family("atb-foo", "foo", requires=["atb-core>=99"])
    assert problem(site) is None


def test_a_dependency_that_is_not_installed_is_named_with_its_range(site: Site) -> None:
    site.family("atb-foo", "foo", requires=["numba>=0.60"])
    assert problem(site) == refused("requires numba>=0.60, which is not installed", "pip install 'numba>=0.60'")


@pytest.mark.parametrize("installed", ["0.59", "0.60rc1"])
def test_a_dependency_of_another_version_is_named_with_both(site: Site, installed: str) -> None:
    site.metadata("numba", installed)
    site.family("atb-foo", "foo", requires=["numba>=0.60"])
    assert problem(site) == refused(
        f"requires numba>=0.60, and numba {installed} is installed", "pip install 'numba>=0.60'"
    )


def test_requirements_that_do_not_apply_are_left_out(site: Site) -> None:
    site.family("atb-foo", "foo", requires=["numba; extra == 'fast'", "tomli; python_version < '3'"])
    assert problem(site) is None


def test_what_pip_needs_quoted_is_quoted_and_extras_are_kept(site: Site) -> None:
    site.family("atb-foo", "foo", requires=["bar[fast] @ https://example.org/bar.whl"])
    found = problem(site)
    assert found is not None and found.fix == "pip install 'bar[fast] @ https://example.org/bar.whl'"


def test_a_version_that_is_no_version_is_not_objected_to(site: Site) -> None:
    site.metadata("numba", "unreleased")
    site.family("atb-foo", "foo", requires=["numba>=0.60"])
    assert problem(site) is None


@pytest.mark.parametrize("requires", ["numba>=", "numba >> 3", ">=1", "numba; python_version =", "numba; 'a' ~= 'b'"])
def test_a_requirement_that_cannot_be_read_is_quoted(site: Site, requires: str) -> None:
    site.family("atb-foo", "foo", requires=[requires])
    found = problem(site)
    assert found is not None and repr(requires) in found.reason
    assert found.fix == "pip install --upgrade atb-foo"


@pytest.mark.parametrize("api", [["1"], ["1", "2"], []])
def test_an_api_version_that_is_served_fits_and_none_stated_is_the_first(site: Site, api: list[str]) -> None:
    site.family("atb-foo", "foo", api=api)
    assert problem(site) is None


def test_a_plugin_for_a_later_api_needs_a_later_core(site: Site) -> None:
    site.family("atb-foo", "foo", api=["2", "3"])
    assert problem(site) == refused(
        "is written for version 2 and 3 of the plugin API, and this atb-core has 1", "pip install --upgrade atb-core"
    )


def test_a_plugin_for_an_api_that_is_gone_needs_a_later_plugin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SUPPORTED_API_VERSIONS", frozenset({2, 3}))
    site.family("atb-foo", "foo", api=["1"])
    assert problem(site) == refused(
        "is written for version 1 of the plugin API, and this atb-core has 2 and 3", "pip install --upgrade atb-foo"
    )
