# SPDX-License-Identifier: Apache-2.0
"""From what a user writes to a checkpoint: where it comes from and in which format it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hook_plugins import Site, failures, site
from site_directory import settings_file

from atb_core.checkpoint import open_checkpoint, open_weights, stored_models
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.checkpoint.opening import with_revision
from atb_core.errors import ModelNotFoundError, PluginError, RequestError, WeightsError
from atb_core.names import pip_install

__all__ = ["settings_file", "site"]

SOURCE = """
    from pathlib import Path
    from atb_core.checkpoint import Source
    from atb_core.plugins import hookimpl

    class Shelf(Source):
        form = "shelf:NAME for a model on the shelf"

        def claims(self, reference):
            {claims}

        def fetch(self, reference, progress):
            {fetch}

    @hookimpl
    def atb_checkpoint_sources():
        return [Shelf()]
"""
CLAIMS = 'return reference.startswith("shelf:")'


def source(shelf: Path, claims: str = CLAIMS, fetch: str = "") -> str:
    return SOURCE.format(claims=claims, fetch=fetch or f"return Path({str(shelf)!r}) / reference[len('shelf:'):]")


def model(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text("{}")
    return directory


def test_a_directory_is_itself(tmp_path: Path) -> None:
    directory = model(tmp_path / "model")
    assert open_checkpoint(str(directory)).path == directory
    assert type(open_checkpoint(directory)) is DirectoryCheckpoint


def test_a_directory_around_one_model_is_that_model(tmp_path: Path) -> None:
    directory = model(tmp_path / "a" / "b")
    assert open_checkpoint(tmp_path).path == directory
    model(tmp_path / "c")
    with pytest.raises(ModelNotFoundError, match=r"2 models: a/b, c"):
        open_checkpoint(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "zero"])
def test_a_path_to_no_file_is_an_error_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match="not a checkpoint that can be opened"):
        open_checkpoint(path)


def test_a_directory_without_a_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match=r"neither a config\.json nor a model file \(\.gguf\)"):
        open_checkpoint(tmp_path)


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = model(tmp_path / "model")
    assert open_checkpoint("~/model").path == directory


@pytest.mark.parametrize(
    "reference", ["nothing", "./nothing", "/nothing/at/all", "missing.gguf", "", "a/b/c", "a/x.gguf"]
)
def test_what_does_not_exist_is_an_error_that_lists_the_forms(
    reference: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("atb-shelf", source(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="there is no model") as caught:
        open_checkpoint(reference)
    for form in (
        "a directory, a .gguf file",
        "shelf:NAME for a model",
    ):
        assert form in str(caught.value.hint)


@pytest.mark.parametrize(
    ("reference", "package"),
    [
        ("owner/name", "atb-hub"),
        ("owner/name@refs/pr/1", "atb-hub"),
        ("https://huggingface.co/owner/name/blob/main/x.gguf", "atb-hub"),
        ("pypi:name", "atb-pypi"),
        ("modelscope:owner/name", "atb-modelscope"),
        ("https://modelscope.cn/models/owner/name", "atb-modelscope"),
    ],
)
def test_a_form_of_a_package_that_is_not_installed_names_the_package(site: Site, reference: str, package: str) -> None:
    with pytest.raises(
        ModelNotFoundError, match=f"is fetched by the package {package}, which is not installed"
    ) as error:
        open_checkpoint(reference)
    assert error.value.hint == f"{pip_install(package)}; `atb plugins list` says what is left out."


def test_a_source_that_is_asked_last_leaves_its_form_to_others(site: Site, tmp_path: Path) -> None:
    claims = "return '/' in reference"
    site.install("atb-last", source(tmp_path, claims, "raise AssertionError") + "\n    Shelf.last = True\n")
    site.install("atb-shelf", source(tmp_path, claims, f"return Path({str(model(tmp_path / 'model'))!r})"))
    assert open_checkpoint("owner/name").path == tmp_path / "model"


def test_a_path_that_does_not_exist_is_looked_for_nowhere_else() -> None:
    with pytest.raises(ModelNotFoundError, match="owner/name does not exist"):
        open_checkpoint(Path("owner/name"))


def test_a_name_that_the_system_refuses_is_an_error() -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot be looked up: .*name too long"):
        open_checkpoint("x" * 5000)


@pytest.mark.parametrize("opens", [open_checkpoint, open_weights])
def test_a_file_of_another_kind_is_an_error(opens: object, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "model.bin").touch()
    with pytest.raises(WeightsError, match="not a checkpoint that can be opened"):
        opens(tmp_path / "notes.txt")  # type: ignore[operator]
    with pytest.raises(WeightsError, match="pickle file"):
        opens(tmp_path / "model.bin")  # type: ignore[operator]


def test_a_plugins_source_makes_a_reference_a_checkpoint(site: Site, tmp_path: Path) -> None:
    site.install("atb-shelf", source(tmp_path))
    directory = model(tmp_path / "m")
    assert open_checkpoint("shelf:m").path == directory
    with pytest.raises(ModelNotFoundError, match="none does not exist"):
        open_checkpoint("shelf:none")


def test_the_disk_comes_before_every_source(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("atb-shelf", source(tmp_path, claims="return True"))
    monkeypatch.chdir(model(tmp_path / "owner" / "name").parents[1])
    assert open_checkpoint("owner/name").path == Path("owner/name")


def test_a_source_that_fails_to_look_at_a_reference_keeps_no_other_from_it(site: Site, tmp_path: Path) -> None:
    site.install("atb-odd", source(tmp_path, claims="return 1 / 0"))
    site.install("atb-shelf", source(tmp_path))
    directory = model(tmp_path / "m")
    assert open_checkpoint("shelf:m").path == directory
    (record,) = failures()
    assert "the source of shelf:NAME" in record.reason
    assert "ZeroDivisionError" in record.reason


@pytest.mark.parametrize(
    ("fetch", "kind", "message"),
    [
        ("return 1 / 0", ModelNotFoundError, r"of atb-odd 1\.0 failed: ZeroDivisionError"),
        ("return 'x'", PluginError, r"of atb-odd 1\.0 returned 'x' for shelf:m, which is no Path"),
    ],
)
def test_a_source_that_fetches_nothing_is_named(
    site: Site, tmp_path: Path, fetch: str, kind: type[Exception], message: str
) -> None:
    site.install("atb-odd", source(tmp_path, fetch=fetch))
    with pytest.raises(kind, match=message):
        open_checkpoint("shelf:m")


def test_two_sources_that_claim_a_reference_are_both_named(site: Site, tmp_path: Path) -> None:
    site.install("atb-a", source(tmp_path))
    site.install("atb-b", source(tmp_path))
    with pytest.raises(PluginError, match=r"comes from several plugins: atb-a 1\.0 and atb-b 1\.0"):
        open_checkpoint("shelf:m")


def test_a_revision_goes_with_the_name_of_a_hub_and_with_an_alias(settings_file: Path, tmp_path: Path) -> None:
    settings_file.write_text('[models.aliases]\nsmall = "maker/small"\nfixed = "maker/small@v1"\n')
    assert with_revision("maker/small", "v2") == "maker/small@v2"
    assert with_revision("small", "v2") == "maker/small@v2"
    for reference in ("fixed", "https://huggingface.co/maker/small", str(tmp_path)):
        with pytest.raises(RequestError, match="the revision 'v2' is given for"):
            with_revision(reference, "v2")


def test_a_source_whose_cache_cannot_be_read_is_named_and_the_others_are_listed(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeps = "\n    def stored(self):\n        {}\n    Shelf.stored = stored\n"
    model_line = "from atb_core.checkpoint import StoredModel; return [StoredModel('shelf:a', Path('/a'), 1)]"
    site.install("atb-closed", source(tmp_path) + keeps.format("raise PermissionError(13, 'Permission denied', '/c')"))
    site.install("atb-shelf", source(tmp_path) + keeps.format(model_line))
    assert "shelf:a" in [model.reference for _, model in stored_models()]
    assert "what the source of shelf:NAME for a model on the shelf keeps on this machine is left out" in caplog.text
    assert "Permission denied: '/c'" in caplog.text
    assert failures() == []
