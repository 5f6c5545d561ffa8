# SPDX-License-Identifier: Apache-2.0
"""Models on the Hugging Face hub or a mirror of it, through the hub library's own cache.

The library reads the environment: `HF_ENDPOINT` (a mirror), `HF_TOKEN`, `HF_HOME` (the cache), `HF_HUB_OFFLINE`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from atb_core.checkpoint.formats import file_suffixes, files_of_model, refuse_without_package
from atb_core.checkpoint.progress import BarProgress, Progress, default_progress, interruptible
from atb_core.checkpoint.sources.base import UNWANTED, WANTED, Source, StoredModel, announce, disk_error
from atb_core.errors import ModelNotFoundError, WeightsError

if TYPE_CHECKING:
    from huggingface_hub import HFCacheInfo

_log = logging.getLogger(__name__)

_REPOSITORY = r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)"
_ID = re.compile(rf"{_REPOSITORY}(?:@(?P<revision>[\w][\w./-]*))?(?P<file>)")
# The addresses that a browser shows: of a repository, of a revision of it, of a file.
_PAGE = re.compile(rf"/{_REPOSITORY}(?:/(?:tree|blob|resolve|raw)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?/?")
_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "hf-mirror.com"})
_CHUNK_BYTES = 256 << 10


@dataclass(frozen=True)
class HubReference:
    """Names a model of the hub: a repository, a revision (`None`: the main branch), one file or all."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repository}{revision}" + (f" ({self.file})" if self.file else "")


def parse_reference(text: str) -> HubReference | None:
    """Returns what `OWNER/NAME[@REVISION]` or an address of the hub names; `None` for another form."""
    match = _ID.fullmatch(text)
    suffixes = tuple(file_suffixes())
    if match is not None and text.lower().endswith((*suffixes, ".safetensors")):
        return None  # a file that is not on this disk
    if match is None:
        try:
            address = urlsplit(text if "://" in text else f"https://{text}")
        except ValueError:  # a bracket without its other half
            return None
        mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
        if address.scheme in ("http", "https") and address.netloc in _HOSTS | ({mirror} - {""}):
            match = _PAGE.fullmatch(unquote(address.path) if "%2F" not in address.path else address.path)
    if match is None:
        return None
    file = match["file"] or ""
    named = file if file.lower().endswith(suffixes) else None
    return HubReference(match["repository"], unquote(match["revision"] or "") or None, named)


class HubSource(Source):
    """Finds the snapshot of a hub repository in the cache or fetches it; never fetches if `HF_HUB_OFFLINE` is set."""

    form = "a hub id (OWNER/NAME, OWNER/NAME@REVISION, or its address)"
    last = True

    def claims(self, reference: str) -> bool:
        return parse_reference(reference) is not None

    def fetch(self, reference: str, progress: Progress | None) -> Path:
        """Returns the directory of the snapshot, or its file that `reference` names.

        What is to be fetched is said on standard error, with its size, where a bar is shown. After a lost connection
        the library goes on within a file; after an interrupt, files that were fetched whole remain.

        Raises:
            ModelNotFoundError: it cannot be fetched, or has no safetensors.
            WeightsError: the disk is full or cannot be written.
        """
        hub = parse_reference(reference)
        if hub is None:
            raise ModelNotFoundError(f"{reference!r} is not a hub id", "Write OWNER/NAME or OWNER/NAME@REVISION.")
        from huggingface_hub import constants, snapshot_download

        shown = isinstance(default_progress() if progress is None else progress, BarProgress)
        if hub.file:
            refuse_without_package(hub.file)
        wanted = [str(part) for part in files_of_model(Path(hub.file))] if hub.file else WANTED
        try:
            if shown:
                _announce(hub, wanted)
            # The library looks up once a chunk, of which a slow line needs many seconds for one of its usual size.
            constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, _CHUNK_BYTES)
            with interruptible() as check:
                snapshot = snapshot_download(
                    hub.repository,
                    revision=hub.revision,
                    allow_patterns=wanted,
                    ignore_patterns=None if hub.file else UNWANTED,
                    tqdm_class=_bars(shown, check),
                )
        except WeightsError:
            raise
        except Exception as error:  # the library's errors span several of its own and its HTTP client's hierarchies
            full = disk_error(error, Path(constants.HF_HUB_CACHE), "HF_HOME")
            raise full or _explain(str(hub), error) from error
        path = Path(snapshot, hub.file) if hub.file else Path(snapshot)
        if not path.exists() or (not hub.file and not any(path.glob("*.safetensors"))):
            what = "such file" if hub.file else "safetensors weights"
            raise ModelNotFoundError(f"{hub} has no {what}", _other_files(hub))
        return path

    def stored(self) -> Sequence[StoredModel]:
        cache = _cache()
        for damaged in cache.warnings if cache else ():
            if "models--" in str(damaged):
                _log.warning("a model in the hub's cache is left out: %s", damaged)
        return [
            StoredModel(
                reference=_reference(repository.repo_id, revision.refs, revision.commit_hash),
                path=revision.snapshot_path,
                nbytes=revision.size_on_disk,
                revision=revision.commit_hash,
            )
            for repository in (cache.repos if cache else ())
            if repository.repo_type == "model"
            for revision in repository.revisions
        ]

    def remove(self, model: StoredModel) -> None:
        if (cache := _cache()) is not None:
            cache.delete_revisions(model.revision).execute()


def _cache() -> HFCacheInfo | None:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        return scan_cache_dir()
    except (CacheNotFound, RuntimeError):  # there is no cache, or not even a home directory for it
        return None
    except ValueError as error:  # it is a file
        raise NotADirectoryError(str(error)) from error


def _reference(repository: str, refs: frozenset[str], commit: str) -> str:
    name = "main" if "main" in refs else min(refs, default=commit)
    return repository if name == "main" else f"{repository}@{name}"


def _announce(hub: HubReference, wanted: list[str]) -> None:
    """Says what a fetch will move; raises `WeightsError` if there is no room for it.

    Other failures are left to the fetch itself, which may find all that is needed in the cache.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.utils._paths import filter_repo_objects

    sizes: dict[str, int] = {}
    with suppress(Exception):
        info = HfApi().model_info(hub.repository, revision=hub.revision, files_metadata=True)
        names = [file.rfilename for file in info.siblings or ()]
        kept = set(filter_repo_objects(names, allow_patterns=wanted, ignore_patterns=None if hub.file else UNWANTED))
        for file in info.siblings or ():
            cached = try_to_load_from_cache(hub.repository, file.rfilename, revision=info.sha)
            if file.rfilename in kept and not isinstance(cached, str):
                sizes[file.rfilename] = file.size or 0
    if sizes:
        announce(f"{hub} from {constants.ENDPOINT}", sizes.values(), Path(constants.HF_HUB_CACHE), "HF_HOME")


def _other_files(hub: HubReference) -> str:
    """Returns the hint for a repository without what was looked for: the files that it has which are models, if any."""
    from huggingface_hub import HfApi, constants

    with suppress(Exception):
        listed, suffixes = HfApi().list_repo_files(hub.repository, revision=hub.revision), tuple(file_suffixes())
        if names := [name for name in listed if name.lower().endswith(suffixes)]:
            address = f"{constants.ENDPOINT}/{hub.repository}/blob/{hub.revision or 'main'}"
            more = f"; others: {', '.join(names[1:6])}" if names[1:] else ""
            return f"It has model files, which are named by their address, such as {address}/{names[0]}{more}."
    return "Choose a repository with .safetensors files, or pass the address of a model file in it."


def _bars(shown: bool, check: Callable[[], None]) -> type[Any]:
    """Returns the hub library's progress bar, or the same switched off; it calls `check` whenever it moves."""
    from huggingface_hub.utils.tqdm import tqdm

    original: Callable[..., None] = tqdm.__init__
    update: Callable[..., Any] = tqdm.update

    def start(bar: Any, *args: Any, **kwargs: Any) -> None:
        original(bar, *args, **{**kwargs, "disable": kwargs.get("disable") or not shown})

    def move(bar: Any, n: Any = 1) -> Any:
        check()
        return update(bar, n)

    return type("HubBar", (tqdm,), {"__init__": start, "update": move})


def _explain(reference: str, error: Exception) -> ModelNotFoundError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        cause, hint = (
            "access is restricted",
            "Accept its licence on the hub, and log in (hf auth login) or set HF_TOKEN.",
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        cause, hint = "there is no such revision", "Check what follows the @."
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause = "there is no such repository, or it is private"
        hint = "Check the name; for a private one log in (hf auth login) or set HF_TOKEN."
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        offline = constants.HF_HUB_OFFLINE or isinstance(error, errors.OfflineModeIsEnabled)
        reason = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} is not reachable"
        cause = f"it is not in the cache ({constants.HF_HUB_CACHE}), and {reason}"
        hint = (
            "Unset HF_HUB_OFFLINE, or pass a model directory on this disk."
            if offline
            else "Set HF_ENDPOINT to a mirror of the hub, copy the cache from a machine with access (HF_HOME), or pass "
            "a model directory on this disk."
        )
    else:
        first_line = str(error).strip().partition("\n")[0]
        cause, hint = f"{type(error).__name__}: {first_line}", "Check the network and try again."
    return ModelNotFoundError(f"cannot fetch {reference} from the hub: {cause}", hint)
