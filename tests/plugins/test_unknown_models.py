# SPDX-License-Identifier: Apache-2.0
"""A model that nothing serves: the error says which of the possible reasons it is, and what helps.

Also what a user meets after the fact: a plugin uninstalled, replaced by an incompatible version, or left behind by
an upgrade of the core.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from site_directory import Site

from atb_core.errors import UnknownModelError
from atb_core.names import pip_install
from atb_core.plugins import unknown
from atb_core.plugins.once import forget
from atb_core.plugins.registry import registry

ROOT = Path(__file__).resolve().parents[2]


def error(site: Site, model_type: str) -> UnknownModelError:
    """Returns the error for a model type, with what is installed in a site now."""
    with pytest.raises(UnknownModelError) as raised:
        site.registry().find(model_type)
    return raised.value


def test_none_known(site: Site) -> None:
    site.family("atb-four", "four", "0.3")
    found = error(site, "gemma_9")
    assert found.message == (
        "no installed package serves the model type 'gemma_9', and this atb-core knows of none that does;"
        " installed families: four (atb-four 0.3)"
    )
    # A name that nobody may have registered is no command to copy.
    assert found.hint is not None and "atb-gemma-9: look at it before you install it" in found.hint
    assert "pip install" not in str(found)


def test_known_and_not_installed(site: Site) -> None:
    found = error(site, "qwen3_moe")
    assert found.message == (
        "the model type 'qwen3_moe' is served by atb-qwen3, which is not installed; no family is installed"
    )
    assert found.hint == pip_install("atb-qwen3")


def test_known_and_installed_in_a_version_without_it(site: Site) -> None:
    site.family("atb-qwen3", "qwen3", "0.1.0")
    found = error(site, "qwen3_moe")
    assert "atb-qwen3 0.1.0 is installed and does not serve the model type 'qwen3_moe'" in found.message
    assert found.hint == "pip install --upgrade atb-qwen3"


def test_installed_and_broken(site: Site) -> None:
    (site.family("atb-four", "four", "0.3") / "METADATA").write_bytes(b"\xff")
    found = error(site, "four")
    assert (
        "'four' is served by an installed package that is broken: atb-four 0.3 cannot be used: its METADATA is not"
        in (found.message)
    )
    assert found.hint == "pip install --force-reinstall --no-deps atb-four"


def test_installed_and_incompatible(site: Site) -> None:
    site.metadata("atb-core", "0.1.0")
    site.family("atb-four", "four", "0.3", requires=["atb-core>=0.2,<0.3"])
    found = error(site, "four")
    assert found.message == (
        "the model type 'four' is served by an installed package that is incompatible:"
        " atb-four 0.3 requires atb-core>=0.2,<0.3, and atb-core 0.1.0 is installed"
    )
    assert found.hint == "pip install 'atb-core>=0.2,<0.3'"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ATB_NO_PLUGINS", "atb-four", "is disabled by ATB_NO_PLUGINS"),
        ("ATB_NO_PLUGINS", "all", "is disabled by ATB_NO_PLUGINS"),
        ("ATB_PLUGINS", "atb-five", "is left out by ATB_PLUGINS, which does not name it"),
    ],
)
def test_installed_and_disabled(site: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    site.family("atb-four", "four", "0.3")
    site.family("atb-five", "five")
    monkeypatch.setenv(name, value)
    found = error(site, "four")
    assert f"an installed package that is disabled: atb-four 0.3 {says}" in found.message
    assert found.hint is not None and name in found.hint


def test_disabled_by_the_settings_file(site: Site, settings_file: Path) -> None:
    settings_file.write_text('[plugins]\ndisabled = ["atb-four"]\n')
    site.family("atb-four", "four")
    assert f"is disabled by plugins.disabled in {settings_file}" in error(site, "four").message


def test_several_packages_that_cannot_be_used_are_all_named(site: Site) -> None:
    site.family("atb-four", "four", api=["9"])
    site.family("other-four", "four", requires=["numba"])
    message = error(site, "four").message
    assert "atb-four 1.0 is written for version 9" in message
    assert "other-four 1.0 requires numba" in message


def test_a_long_list_of_installed_families_is_cut(site: Site) -> None:
    for number in range(20):
        site.family(f"atb-many-{number:02}", f"many_{number:02}")
    message = error(site, "gemma_9").message
    assert "many_11 (atb-many-11 1.0) and 8 more (`atb list`)" in message
    assert "many_12" not in message


def test_the_index_holds_exactly_what_the_packages_of_this_repository_serve() -> None:
    index = unknown.known_families()
    tomllib = pytest.importorskip("tomllib")
    served = {}
    for path in sorted((ROOT / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        served.update(dict.fromkeys(project.get("entry-points", {}).get("atb_core.routers", {}), project["name"]))
    assert index == served
    assert index["qwen2"] == "atb-qwen2"


# After the fact.


def test_uninstalling_a_plugin(site: Site) -> None:
    info = site.family("atb-llama", "llama")
    assert site.registry().find("llama").package == "atb-llama 1.0"
    site.remove(info)
    assert error(site, "llama").hint == pip_install("atb-llama")


def test_installing_an_incompatible_version(site: Site) -> None:
    site.metadata("atb-core", "0.1.0")
    old = site.family("atb-llama", "llama", "0.1.0", requires=["atb-core>=0.1,<0.2"])
    assert site.registry().find("llama").package == "atb-llama 0.1.0"
    site.remove(old)
    site.family("atb-llama", "llama", "0.3.0", requires=["atb-core>=0.3,<0.4"])
    found = error(site, "llama")
    assert "atb-llama 0.3.0 requires atb-core>=0.3,<0.4, and atb-core 0.1.0 is installed" in found.message
    assert found.hint == "pip install 'atb-core>=0.3,<0.4'"


def test_upgrading_the_core_beneath_a_plugin(site: Site) -> None:
    core = site.metadata("atb-core", "0.1.0")
    site.family("atb-llama", "llama", "0.1.0", requires=["atb-core>=0.1,<0.2"])
    assert site.registry().find("llama").package == "atb-llama 0.1.0"
    site.remove(core)
    site.metadata("atb-core", "0.2.0")
    found = error(site, "llama")
    assert "atb-llama 0.1.0 requires atb-core>=0.1,<0.2, and atb-core 0.2.0 is installed" in found.message
    assert found.hint == "pip install --upgrade atb-llama"


def test_a_running_process_sees_a_change_when_it_looks_again(site: Site) -> None:
    info = site.family("atb-four", "four")
    forget()
    assert registry().find("four").package == "atb-four 1.0"
    site.remove(info)
    assert registry().find("four").package == "atb-four 1.0"
    forget()
    with pytest.raises(UnknownModelError):
        registry().find("four")
