# SPDX-License-Identifier: Apache-2.0
"""Hub ids: what is asked of the hub's library, and what its errors become."""

from __future__ import annotations

import errno
import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hook_plugins import Site, site
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects

from atb_core.checkpoint import SilentProgress, open_checkpoint
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_hub.source import HubSource

__all__ = ["site"]


class Hub:
    """Stands in for the library's download; keeps what it was asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: dict[str, Any] = {}
        self.error: Exception | None = None

    def __call__(self, repo_id: str, **options: Any) -> str:
        self.asked = {"repo_id": repo_id, **options}
        if self.error is not None:
            raise self.error
        return str(self.directory)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in := Hub(tmp_path))
    return stand_in


def test_an_id_and_its_revision_are_passed_on(hub: Hub) -> None:
    assert open_checkpoint("owner/some-model.v1@refs/pr/3", SilentProgress()).path == hub.directory
    assert (hub.asked["repo_id"], hub.asked["revision"]) == ("owner/some-model.v1", "refs/pr/3")
    open_checkpoint("owner/name")
    assert hub.asked["revision"] is None


def test_a_file_whose_package_is_not_installed_is_not_fetched(site: Site) -> None:
    address = "https://huggingface.co/owner/name/blob/main/x.gguf"
    with pytest.raises(WeightsError, match=r"x\.gguf is read by the package atb-gguf"):
        HubSource().fetch(address, SilentProgress())


def test_only_data_is_asked_for(hub: Hub) -> None:
    open_checkpoint("owner/name")
    offered = [
        "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "tokenizer.model", "merges.txt", "chat_template.jinja",
        "modeling_name.py", "tokenizer_name.py", "pytorch_model.bin", "model.pt", "tokenizer.pkl", "tokenizer.so",
        "original/consolidated.00.pth", "onnx/config.json", "consolidated.safetensors",
    ]  # fmt: skip
    kept = filter_repo_objects(
        offered, allow_patterns=hub.asked["allow_patterns"], ignore_patterns=hub.asked["ignore_patterns"]
    )
    assert list(kept) == offered[:7]


def test_the_hub_shows_a_bar_only_where_one_is_wanted(hub: Hub) -> None:
    open_checkpoint("owner/name", SilentProgress())
    assert hub.asked["tqdm_class"](total=3).disable is True


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.LocalEntryNotFoundError("x"), r"not in the cache \(.*HF_HUB_OFFLINE is set|is not reachable"),
        (errors.OfflineModeIsEnabled("x"), "HF_HUB_OFFLINE is set"),
        (ConnectionError("refused"), "ConnectionError: refused"),
    ],
)
def test_failures_are_explained(error: Exception, cause: str, hub: Hub) -> None:
    hub.error = error
    with pytest.raises(ModelNotFoundError, match=cause) as caught:
        open_checkpoint("owner/name")
    assert "owner/name" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("number", "cause"),
    [(errno.ENOSPC, "not enough disk space below"), (errno.EACCES, r"cannot write to .*: Permission denied")],
)
def test_a_cache_that_cannot_be_written_is_an_error(number: int, cause: str, hub: Hub) -> None:
    hub.error = OSError(number, "x")
    with pytest.raises(WeightsError, match=cause) as caught:
        open_checkpoint("owner/name")
    assert "HF_HOME" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (errors.RepositoryNotFoundError, "no such repository"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.GatedRepoError, "access is restricted"),
    ],
)
def test_refusals_of_the_hub_are_explained(kind: type[Exception], cause: str, hub: Hub) -> None:
    # These errors want the hub's answer, which differs between versions of the library; only the kind matters.
    hub.error = kind.__new__(kind)
    with pytest.raises(ModelNotFoundError, match=cause):
        open_checkpoint("owner/name")


def test_a_repository_without_safetensors_is_an_error(hub: Hub) -> None:
    (hub.directory / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="no safetensors"):
        open_checkpoint("owner/name")


def test_what_is_on_the_disk_is_never_looked_for_on_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "config.json").write_text("{}")
    assert open_checkpoint("owner/name").path == Path("owner/name")
    assert hub.asked == {}


@pytest.mark.parametrize("text", ["name", "a/b/c", "./a/b", "/a/b", "~/a", "a/b@", "a b/c", "../a/b", "a/b@../x"])
def test_paths_are_not_hub_ids(text: str) -> None:
    assert not HubSource().claims(text)


def test_the_patterns_are_read_as_the_hub_reads_them() -> None:
    assert fnmatch.fnmatch("original/params.json", "*/*")


def test_a_model_in_the_hub_cache_opens_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("a" * 40)
    for directory in (snapshot, repository / "blobs", repository / "refs"):
        directory.mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    for name in ("config.json", "model.safetensors"):
        (repository / "blobs" / name).write_bytes(b"{}")
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_checkpoint("owner/name").path == snapshot
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE is set"):
        open_checkpoint("owner/other")
