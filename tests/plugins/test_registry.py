# SPDX-License-Identifier: Apache-2.0
"""Families are found from metadata, imported one at a time, and reported by name when something is wrong."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from atb_core.errors import PluginError, UnknownModelError
from atb_core.plugins import CONFIGS, MODELS, ROUTERS, FamilyRegistry


def install(site: Path, distribution: str, version: str, model_type: str, source: str) -> None:
    """Puts a package with one module and its metadata into `site`, as pip would."""
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nSummary: Serves {model_type}\n",
        encoding="utf-8",
    )
    (info / "entry_points.txt").write_text(
        f"[{ROUTERS}]\n{model_type} = {module}:Router\n[{CONFIGS}]\n{model_type} = {module}:Config\n",
        encoding="utf-8",
    )


GOOD = "class Router: ...\nclass Config: ...\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def scan(site: Path) -> FamilyRegistry:
    return FamilyRegistry(importlib.metadata.distributions(path=[str(site)]))


def test_families_are_listed_without_importing_them(site: Path) -> None:
    install(site, "atb-one", "1.2.0", "one", "raise RuntimeError('imported')")
    (family,) = scan(site).families()
    assert (family.model_type, family.package, family.summary) == ("one", "atb-one 1.2.0", "Serves one")
    assert family.objects == {ROUTERS: "atb_one:Router", CONFIGS: "atb_one:Config"}
    assert "atb_one" not in sys.modules


def test_only_the_family_asked_for_is_imported(site: Path) -> None:
    install(site, "atb-two", "1.0", "two", GOOD)
    install(site, "atb-three", "1.0", "three", GOOD)
    assert scan(site).find("two").load(ROUTERS).__module__ == "atb_two"
    assert "atb_three" not in sys.modules


def test_an_unknown_type_names_the_installed_families_and_what_to_install(site: Path) -> None:
    install(site, "atb-four", "0.3", "four", GOOD)
    with pytest.raises(UnknownModelError) as error:
        scan(site).find("gemma_9")
    assert "'gemma_9'" in str(error.value)
    assert "four (atb-four 0.3)" in str(error.value)
    assert "pip install atb-gemma-9" in str(error.value)


def test_without_any_family_the_error_says_so(site: Path) -> None:
    with pytest.raises(UnknownModelError, match="no family is installed"):
        scan(site).find("one")


def test_a_plugin_that_fails_to_import_is_named_with_version_and_cause(site: Path) -> None:
    install(site, "atb-five", "2.0", "five", "import a_module_that_does_not_exist")
    install(site, "atb-six", "1.0", "six", GOOD)
    found = scan(site)
    with pytest.raises(PluginError) as error:
        found.find("five").load(ROUTERS)
    assert "atb-five 2.0" in str(error.value)
    assert "No module named 'a_module_that_does_not_exist'" in str(error.value)
    assert found.find("six").load(ROUTERS).__name__ == "Router"


def test_a_plugin_without_the_class_it_promises_is_named(site: Path) -> None:
    install(site, "atb-seven", "2.0", "seven", "class Config: ...")
    with pytest.raises(PluginError, match=r"atb-seven 2\.0 failed to import 'atb_seven:Router'"):
        scan(site).find("seven").load(ROUTERS)


def test_a_missing_entry_point_says_which_group(site: Path) -> None:
    install(site, "atb-eight", "2.0", "eight", GOOD)
    with pytest.raises(PluginError, match=r"atb-eight 2\.0 offers nothing .*atb_core\.models"):
        scan(site).find("eight").load(MODELS)


def test_two_packages_for_one_type_are_both_named_unless_one_is_preferred(site: Path) -> None:
    install(site, "atb-nine", "1.0", "nine", GOOD)
    install(site, "other-nine", "3.1", "nine", GOOD)
    found = scan(site)
    with pytest.raises(PluginError, match=r"atb-nine 1\.0 and other-nine 3\.1"):
        found.find("nine")
    assert found.find("nine", prefer="other-nine").distribution == "other-nine"
    assert len(found.families()) == 2


def test_one_package_found_twice_is_one_family(site: Path, tmp_path: Path) -> None:
    for copy in ("a", "b"):
        (site / copy).mkdir()
        install(site / copy, "atb-ten", "1.0", "ten", GOOD)
    found = FamilyRegistry(importlib.metadata.distributions(path=[str(site / "a"), str(site / "b")]))
    assert [family.package for family in found.families()] == ["atb-ten 1.0"]


def test_listing_imports_neither_torch_nor_transformers_nor_a_plugin() -> None:
    code = (
        "import sys; from atb_core.plugins import families; found = families(); "
        "assert not {'torch', 'transformers'} & set(sys.modules); "
        "assert not {f.objects['atb_core.routers'].split('.')[0] for f in found} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
