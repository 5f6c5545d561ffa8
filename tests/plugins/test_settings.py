# SPDX-License-Identifier: Apache-2.0
"""Settings are strict: an unknown key or a wrong value is an error that names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from atb_core.checkpoint import open_checkpoint
from atb_core.errors import SettingsError
from atb_core.settings import load_settings, settings, settings_path

FILE = """
[plugins]
only = ["atb-one", "Atb_Two"]
disabled = ["atb_three"]
strict = true
[plugins.prefer]
qwen2 = "Atb.One"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_without_a_file_or_variables_everything_is_allowed(tmp_path: Path) -> None:
    plugins = load_settings(tmp_path / "absent.toml", {}).plugins
    assert (plugins.only, plugins.disabled, plugins.strict, plugins.prefer) == (None, {}, False, {})
    assert plugins.import_seconds == 60


def test_the_file_says_which_plugins_may_be_used(file: Path) -> None:
    plugins = load_settings(file, {}).plugins
    assert plugins.only == {"atb-one", "atb-two"}
    assert plugins.disabled == {"atb-three": f"plugins.disabled in {file}"}
    assert plugins.strict
    assert plugins.prefer == {"qwen2": "atb-one"}
    assert plugins.only_source == f"plugins.only in {file}"
    assert plugins.prefer_sources == {"qwen2": f"plugins.prefer.qwen2 in {file}"}


def test_the_file_says_who_writes_the_graphs(file: Path) -> None:
    assert load_settings(file, {}).graph == "python"
    file.write_text("[engine]\ngraph = 'cpp'\n")
    assert load_settings(file, {}).graph == "cpp"


def test_models_have_aliases_and_a_default_which_may_be_one(file: Path) -> None:
    assert load_settings(file, {}).models == {}
    file.write_text("[models]\ndefault = 'small'\n[models.aliases]\nsmall = 'owner/name'\n")
    assert load_settings(file, {}).models == {"small": "owner/name", "default": "owner/name"}
    file.write_text("[models]\ndefault = '/a/model'\n")
    assert load_settings(file, {}).models == {"default": "/a/model"}


def test_a_model_is_opened_by_its_alias_unless_a_file_has_the_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    file.write_text(f"[models]\ndefault = {str(model)!r}\n[models.aliases]\nsmall = {str(model)!r}\n")
    monkeypatch.setenv("ATB_CONFIG", str(file))
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("small").path == open_checkpoint("default").path == model
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    assert open_checkpoint("small").path.resolve() == tmp_path / "small"


def test_variables_come_before_the_file(file: Path) -> None:
    environ = {
        "ATB_PLUGINS": "atb-four, Atb_Five,",
        "ATB_NO_PLUGINS": "atb-six",
        "ATB_STRICT": "0",
        "ATB_PLUGINS_PREFER": "llama=atb-four,qwen2=atb_five",
        "ATB_PLUGIN_TIMEOUT": "2.5",
    }
    plugins = load_settings(file, environ).plugins
    assert (plugins.only, plugins.only_source) == ({"atb-four", "atb-five"}, "ATB_PLUGINS")
    assert (plugins.strict, plugins.import_seconds) == (False, 2.5)
    assert plugins.prefer == {"llama": "atb-four", "qwen2": "atb-five"}
    assert plugins.prefer_sources["qwen2"] == "ATB_PLUGINS_PREFER"


def test_leaving_out_one_more_plugin_does_not_bring_back_another(file: Path) -> None:
    disabled = load_settings(file, {"ATB_NO_PLUGINS": "atb-six"}).plugins.disabled
    assert disabled == {"atb-three": f"plugins.disabled in {file}", "atb-six": "ATB_NO_PLUGINS"}


def test_a_variable_set_to_nothing_is_not_set_and_an_empty_list_is_a_list(file: Path) -> None:
    names = ("ATB_PLUGINS", "ATB_NO_PLUGINS", "ATB_STRICT", "ATB_PLUGINS_PREFER", "ATB_PLUGIN_TIMEOUT")
    assert load_settings(file, dict.fromkeys(names, "")) == load_settings(file, {})
    file.write_text("[plugins]\nonly = []\n")
    assert load_settings(file, {}).plugins.only == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[plugin]\n", "an unknown key 'plugin' in the top level. Known there: models, plugins"),
        (
            "[plugins]\ndisable = []\n",
            "an unknown key 'disable' in [plugins]. Known there: only, disabled, strict, pref",
        ),
        ("[plugins]\nonly = 'atb-one'\n", "sets plugins.only to 'atb-one'; it must be a list of names"),
        ("[plugins]\nonly = [1]\n", "sets plugins.only to [1]; it must be a list of names"),
        ("[plugins]\ndisabled = ['']\n", "it must be a list of names"),
        ("[plugins]\nstrict = 1\n", "sets plugins.strict to 1; it must be true or false"),
        ("[plugins]\nprefer = 'x'\n", "sets plugins.prefer to 'x'; it must be a table"),
        ("[plugins.prefer]\nqwen2 = 3\n", "sets plugins.prefer.qwen2 to 3; it must be a name"),
        ("[engine]\ngraph = 'rust'\n", "sets engine.graph to 'rust'; it must be 'python' or 'cpp'"),
        ("[engine]\ngraph = true\n", "sets engine.graph to True; it must be 'python' or 'cpp'"),
        ("[engine]\ngraf = 'cpp'\n", "an unknown key 'graf' in [engine]. Known there: graph"),
        ("plugins = true\n", "sets plugins to True; it must be a table"),
        ("[models]\ndefault = ''\n", "sets models.default to ''; it must be a name"),
        ("[models.aliases]\na = 7\n", "sets models.aliases.a to 7; it must be a name"),
        ("[models.aliases]\na = 'b'\nb = '/m'\n", "models.aliases.a in"),
        ("[models.aliases]\na = 'a'\n", "leads to the alias 'a'"),
        ("[models.aliases]\ndefault = '/m'\n", "is the name of models.default"),
        ("a = " + "{ a = " * 3000 + "1" + "}" * 3000 + "\n", "is not valid TOML"),
        ("[plugins\n", "is not valid TOML"),
        ("[plugins]\nstrict = true\nstrict = true\n", "is not valid TOML"),
        (b"# Ren\xe9\n", "is not UTF-8 at byte 5"),
        ("a=" + "[" * 9000, "is not valid TOML"),
        ("#" * (1 << 20) + "\n", "is larger than 1 MiB"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_file_and_key(file: Path, text: str | bytes, message: str) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError) as error:
        load_settings(file, {})
    assert str(file) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATB_STRICT", "maybe"),
        ("ATB_PLUGIN_TIMEOUT", "soon"),
        ("ATB_PLUGIN_TIMEOUT", "0"),
        ("ATB_PLUGIN_TIMEOUT", "nan"),
        ("ATB_PLUGIN_TIMEOUT", "inf"),
        ("ATB_PLUGINS_PREFER", "qwen2"),
        ("ATB_PLUGINS_PREFER", "qwen2="),
    ],
)
def test_a_variable_that_means_nothing_is_an_error_that_names_it(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(tmp_path / "absent.toml", {name: value})


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_strict_is_switched_on_in_the_usual_ways(tmp_path: Path, value: str) -> None:
    assert load_settings(tmp_path / "absent.toml", {"ATB_STRICT": value}).plugins.strict


def test_a_file_that_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a regular file"):
        load_settings(tmp_path, {})


def test_where_the_file_is_looked_for() -> None:
    assert settings_path({"ATB_CONFIG": "/a/b.toml", "XDG_CONFIG_HOME": "/c"}) == Path("/a/b.toml")
    assert settings_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/atb/config.toml")
    assert settings_path({"XDG_CONFIG_HOME": ""}) == Path.home() / ".config" / "atb" / "config.toml"


def test_a_named_file_must_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_CONFIG", str(file.with_name("absent.toml")))
    with pytest.raises(SettingsError, match=r"ATB_CONFIG names .*absent\.toml"):
        settings()


def test_changes_of_file_and_variables_are_seen_at_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_CONFIG", str(file))
    monkeypatch.delenv("ATB_STRICT", raising=False)
    assert settings().plugins.strict
    monkeypatch.setenv("ATB_STRICT", "0")
    assert not settings().plugins.strict
    monkeypatch.delenv("ATB_STRICT")
    file.write_text("[plugins]\nstrict = false\n")
    assert not settings().plugins.strict
