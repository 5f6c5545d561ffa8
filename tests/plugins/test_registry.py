# SPDX-License-Identifier: Apache-2.0
"""Families are found from metadata, imported one at a time, and complete or refused."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import pytest
from site_directory import GOOD, Site

from atb_core.errors import PluginError
from atb_core.plugins.once import forget
from atb_core.plugins.records import Status, records
from atb_core.plugins.registry import CONFIGS, MODELS, ROUTERS, load, owner_of, registry


def test_families_are_listed_without_importing_them(site: Site) -> None:
    site.family("atb-one", "one", "1.2.0", "raise RuntimeError('imported')")
    (family,) = site.registry().families()
    assert (family.model_type, family.package, family.summary) == ("one", "atb-one 1.2.0", "Serves one")
    assert family.objects == {ROUTERS: "atb_one:Router", CONFIGS: "atb_one:Config", MODELS: "atb_one_models:Model"}
    assert (family.status, family.reason, family.fix) == (Status.OK, "", None)
    assert "atb_one" not in sys.modules


def test_one_package_may_serve_several_types(site: Site) -> None:
    lines = [f"[{group}]\ntwo = atb_two:{name}\ntwo_moe = atb_two:{name}\n" for group, name in GROUPS]
    site.metadata("atb-two", "1.0", "".join(lines))
    assert [family.model_type for family in site.registry().families()] == ["two", "two_moe"]
    assert site.registry().find("two_moe").package == "atb-two 1.0"


GROUPS = [(ROUTERS, "Router"), (CONFIGS, "Config"), (MODELS, "Model")]


def test_only_the_family_asked_for_is_imported(site: Site) -> None:
    site.family("atb-two", "two")
    site.family("atb-three", "three")
    found = site.registry()
    assert found.load(found.find("two"), ROUTERS).__module__ == "atb_two"
    assert "atb_three" not in sys.modules
    assert "atb_two_models" not in sys.modules


def test_a_family_that_cannot_be_used_is_listed_with_the_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-b")
    site.metadata("atb-core", "0.1")
    site.family("atb-a", "a", requires=["atb-core>=2"])
    site.family("atb-b", "b")
    (site.family("atb-c", "c") / "METADATA").unlink()
    site.family("atb-d", "d", source="raise ValueError('broken')")
    site.family("atb-e", "e", objects={CONFIGS: "atb_e:Config"})
    found = site.registry()
    with pytest.raises(PluginError):
        found.load(found.find("d"), ROUTERS)
    a, b, c, d, e = found.families()
    assert (a.status, a.fix) == (Status.INCOMPATIBLE, "pip install 'atb-core>=2'")
    assert a.reason == "requires atb-core>=2, and atb-core 0.1 is installed"
    assert (b.status, b.reason) == (Status.DISABLED, "is disabled by ATB_NO_PLUGINS")
    assert (c.status, c.reason) == (Status.FAILED, "cannot be used: it has no METADATA")
    assert (d.status, d.reason) == (Status.FAILED, "failed to import: ValueError: broken")
    assert (e.status, e.reason) == (
        Status.FAILED,
        "has no router for e: it has no entry for it in atb_core.routers",
    )


def test_a_missing_entry_point_says_which_group(site: Site) -> None:
    site.family("atb-eight", "eight", "2.0", objects={ROUTERS: "atb_eight:Router"})
    found = site.registry()
    with pytest.raises(PluginError, match=r"atb-eight 2\.0 has nothing .*atb_core\.models"):
        found.load(found.find("eight"), MODELS)


OVERRIDES = {CONFIGS: "    def get_config(self): ...\n", MODELS: "    def get_model_cls(self): ...\n"}


@pytest.mark.parametrize("group", [CONFIGS, MODELS])
def test_a_family_in_part_is_refused_unless_its_router_supplies_the_rest(site: Site, group: str) -> None:
    objects = {ROUTERS: "atb_half:Router", CONFIGS: "atb_half:Config", MODELS: "atb_half_models:Model"}
    del objects[group]
    site.family("atb-half", "half", objects=objects)
    whole = GOOD.replace("class Router(BaseRouter): ...\n", f"class Router(BaseRouter):\n{OVERRIDES[group]}")
    objects = {name: value.replace("half", "whole") for name, value in objects.items()}
    site.family("atb-whole", "whole", source=whole, objects=objects)
    found = site.registry()
    with pytest.raises(PluginError) as error:
        found.load(found.find("half"), ROUTERS)
    assert f"atb-half 1.0 serves 'half' only in part: it has no entry for it in {group}" in error.value.message
    assert found.load(found.find("whole"), ROUTERS).__module__ == "atb_whole"


def test_a_router_is_not_handed_out_where_the_rest_of_its_family_is_broken(site: Site) -> None:
    site.family("atb-nine", "nine", source=GOOD.replace("class Config", "class Other"))
    site.family("atb-ten", "ten", objects={**TEN, MODELS: "atb_ten.absent:Model"})
    found = site.registry()
    with pytest.raises(PluginError, match="has no 'Config'"):
        found.load(found.find("nine"), ROUTERS)
    with pytest.raises(PluginError, match=r"no module 'atb_ten\.absent'"):
        found.load(found.find("ten"), ROUTERS)
    assert [family.status for family in found.families()] == [Status.FAILED, Status.FAILED]


TEN = {ROUTERS: "atb_ten:Router", CONFIGS: "atb_ten:Config"}


def test_one_package_found_twice_is_one_family(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    Site(tmp_path / "other").family("atb-ten", "ten")
    site.family("atb-ten", "ten")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    forget()
    assert [family.package for family in registry().families() if family.model_type == "ten"] == ["atb-ten 1.0"]


# Two packages for one type.


@pytest.fixture
def rivals(site: Site) -> Site:
    """Returns a site where two packages serve `nine`."""
    site.family("atb-nine", "nine")
    site.family("other-nine", "nine", "3.1")
    return site


def test_two_packages_for_one_type_are_an_error_that_names_both_and_the_setting(
    rivals: Site, settings_file: Path
) -> None:
    found = rivals.registry()
    with pytest.raises(PluginError) as error:
        found.find("nine")
    assert str(error.value) == (
        "model type 'nine' is claimed by several packages: atb-nine 1.0 and other-nine 3.1."
        f' Choose one: nine = "atb-nine" under [plugins.prefer] in {settings_file}, or'
        " ATB_PLUGINS_PREFER=nine=atb-nine; or uninstall the others."
    )
    assert len(found.families()) == 2
    resolution = found.resolve("nine")
    assert resolution.winner is None and resolution.error is not None and len(resolution.candidates) == 2


def test_the_settings_decide(rivals: Site, settings_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings_file.write_text('[plugins.prefer]\nnine = "Other_Nine"\n')
    found = rivals.registry()
    assert found.find("nine").distribution == "other-nine"
    assert found.resolve("nine").why == f"preferred by plugins.prefer.nine in {settings_file}"
    monkeypatch.setenv("ATB_PLUGINS_PREFER", "nine=atb-nine")
    assert found.find("nine").distribution == "atb-nine"
    assert found.resolve("nine").why == "preferred by ATB_PLUGINS_PREFER"
    assert found.find("nine", prefer="other-nine").distribution == "other-nine"


def test_disabling_one_of_them_decides_too(rivals: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_NO_PLUGINS", "other-nine")
    resolution = rivals.registry().resolve("nine")
    assert resolution.winner is not None and resolution.winner.distribution == "atb-nine"
    assert resolution.why == "the only one that can be used: other-nine 3.1 is disabled by ATB_NO_PLUGINS"


def test_a_preference_is_never_passed_over(rivals: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found = rivals.registry()
    with pytest.raises(PluginError) as error:
        found.find("nine", prefer="third-nine")
    assert "the caller wants 'nine' served by third-nine, and no such package is installed" in error.value.message
    assert "atb-nine 1.0 and other-nine 3.1" in error.value.message
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-nine")
    monkeypatch.setenv("ATB_PLUGINS_PREFER", "nine=atb-nine")
    with pytest.raises(PluginError) as error:
        found.find("nine")
    assert error.value.message == (
        "ATB_PLUGINS_PREFER wants 'nine' served by atb-nine 1.0, which is disabled by ATB_NO_PLUGINS"
    )


def test_what_failed_before_does_not_change_who_is_asked(rivals: Site) -> None:
    (rivals.path / "atb_nine.py").write_text("raise ValueError('broken')")
    found = rivals.registry()
    with pytest.raises(PluginError):
        found.load(found.find("nine", prefer="atb-nine"), ROUTERS)
    with pytest.raises(PluginError, match="claimed by several"):
        found.find("nine")


def test_a_rival_that_is_incompatible_is_passed_over_with_a_warning(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.family("atb-nine", "nine", api=["7"])
    site.family("other-nine", "nine", "3.1")
    found = site.registry()
    with caplog.at_level(logging.WARNING):
        assert found.find("nine").distribution == "other-nine"
        assert found.find("nine").distribution == "other-nine"
    (message,) = caplog.messages
    assert message.startswith("nine is served by other-nine 3.1: atb-nine 1.0 is written for version 7")


def test_a_router_takes_the_rest_from_its_own_package(rivals: Site) -> None:
    forget()
    router = load(ROUTERS, "nine", prefer="other-nine")
    assert owner_of(router) == "other-nine"
    assert type(router("", {"model_type": "nine"}).get_config()).__module__ == "other_nine"
    with pytest.raises(PluginError, match="claimed by several"):
        load(CONFIGS, "nine")


# Settings that name what is not there.


@pytest.mark.parametrize("name", ["ATB_PLUGINS", "ATB_NO_PLUGINS"])
def test_a_name_that_matches_nothing_is_told_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    site.family("atb-one", "one")
    site.family("atb-two", "two")
    monkeypatch.setenv(name, "atb-oen" if name == "ATB_NO_PLUGINS" else "atb-oen,atb-two")
    families = site.registry()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            families.find("two")
    assert caplog.messages == [f"{name} names atb-oen, which is not installed. Did you mean atb-one?"]


def test_a_switch_where_names_belong_is_told_the_name_of_all(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.family("atb-one", "one")
    monkeypatch.setenv("ATB_NO_PLUGINS", "1")
    with caplog.at_level(logging.WARNING):
        site.registry().find("one")
    assert caplog.messages == ["ATB_NO_PLUGINS names 1, which is not installed. Did you mean all?"]


def test_a_name_that_is_installed_and_no_plugin_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.metadata("numpy", "2.0")
    site.family("atb-one", "one")
    monkeypatch.setenv("ATB_PLUGINS_PREFER", "one=atb-one,other=numpy")
    site.registry().find("one")
    assert "ATB_PLUGINS_PREFER names numpy, which is no plugin" in caplog.text


def test_strict_settings_make_it_an_error(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.family("atb-one", "one")
    monkeypatch.setenv("ATB_STRICT", "1")
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-tow")
    with pytest.raises(PluginError, match="ATB_NO_PLUGINS names atb-tow, which is not installed"):
        site.registry().find("one")


def test_with_strict_settings_any_plugin_that_cannot_be_used_is_an_error(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.family("atb-one", "one")
    site.family("atb-two", "two", api=["9"])
    site.family("atb-three", "three", requires=["numba"])
    assert site.registry().find("one").package == "atb-one 1.0"
    monkeypatch.setenv("ATB_STRICT", "1")
    with pytest.raises(PluginError) as error:
        site.registry().find("one")
    assert error.value.message == (
        "the plugin atb-three 1.0 requires numba, which is not installed; also unusable: atb-two 1.0 (ATB_STRICT)"
    )
    monkeypatch.setenv("ATB_NO_PLUGINS", "atb-two,atb-three")
    assert site.registry().find("one").package == "atb-one 1.0"


def test_twenty_thousand_entry_points_are_listed_in_linear_time(site: Site) -> None:
    count = 20_000
    for distribution in ("atb-big", "atb-rival"):
        lines = "\n".join(f"type_{number} = big:Router" for number in range(count))
        site.metadata(distribution, "1.0", f"[atb_core.routers]\n{lines}\n[atb_core.api]\n1 = big\n")
    start = time.process_time()
    found = site.registry()
    assert len(found.families()) == 2 * count
    assert found.resolve("type_7").winner is None
    # A minute and more where each look-up goes through all of them.
    assert time.process_time() - start < 10


def test_nothing_is_recorded_where_nothing_was_tried(site: Site) -> None:
    site.family("atb-one", "one", api=["9"])
    found = site.registry()
    found.families()
    found.resolve("one")
    assert records() == ()
