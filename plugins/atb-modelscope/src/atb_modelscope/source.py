# SPDX-License-Identifier: Apache-2.0
"""Models on ModelScope, through the cache of its own library, `modelscope-hub`.

The library reads the environment: `MODELSCOPE_ENDPOINT`, `MODELSCOPE_API_TOKEN`, `MODELSCOPE_CACHE`.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from atb_core.checkpoint import BarProgress, Progress, Source, StoredModel, default_progress, interruptible, job
from atb_core.checkpoint.sources.base import UNWANTED, WANTED, announce, disk_error
from atb_core.errors import ModelNotFoundError, WeightsError

_PREFIX = "modelscope:"
_REPOSITORY = r"(?P<repository>[A-Za-z0-9][\w.-]*/[\w.-]+)"
_ID = re.compile(rf"{_PREFIX}{_REPOSITORY}(?:@(?P<revision>[\w][\w./-]*))?")
_PAGE = re.compile(
    rf"(?:https?://)?(?:www\.)?modelscope\.(?:cn|ai)/models/{_REPOSITORY}"
    r"(?:/(?:summary|files|(?:tree|file/view)/(?P<revision>[^/?#]+)[^?#]*))?/?(?:[?#].*)?"
)


def _parse(reference: str) -> re.Match[str] | None:
    return _ID.fullmatch(reference) or _PAGE.fullmatch(reference)


class ModelScopeSource(Source):
    """Finds the snapshot of a repository of ModelScope in its library's cache, or fetches it."""

    form = "modelscope:OWNER/NAME"

    def claims(self, reference: str) -> bool:
        return _parse(reference) is not None

    def fetch(self, reference: str, progress: Progress | None) -> Path:
        """Returns the directory of the snapshot; without a network, that of the cache."""
        match = _parse(reference)
        if match is None:
            raise ModelNotFoundError(f"{reference!r} is no model of ModelScope", "Write modelscope:OWNER/NAME.")
        from modelscope_hub import HubApi, errors, get_default_config

        repository, revision, api = match["repository"], match["revision"], HubApi()
        if isinstance(default_progress() if progress is None else progress, BarProgress):
            with suppress(errors.HubError):
                _announce(api, repository, revision)
        options: dict[str, Any] = {"revision": revision, "allow_patterns": WANTED, "ignore_patterns": UNWANTED}
        try:
            with job(progress, f"Fetching {repository}", None) as bar, interruptible() as check:
                try:
                    options["progress_callbacks"] = [_callback(bar, check)]
                    path = api.download_repo(repository, "model", **options)
                except errors.NetworkError:
                    path = api.download_repo(repository, "model", revision=revision, local_files_only=True)
        except errors.NotExistError as error:
            raise _not_found(reference, "there is no such repository or revision, or it is private") from error
        except (errors.CacheError, errors.NetworkError) as error:
            raise _not_found(reference, "it is not in the cache, and ModelScope is not reachable") from error
        except errors.FileIntegrityError as error:
            raise WeightsError(f"{reference} did not arrive intact: {error}", "Fetch it again.") from error
        except (errors.HubError, OSError) as error:
            full = disk_error(error, get_default_config().cache_dir, "MODELSCOPE_CACHE")
            raise full or _not_found(reference, f"{type(error).__name__}: {error}") from error
        return Path(path)

    def stored(self) -> Sequence[StoredModel]:
        from modelscope_hub import get_default_config

        models = []
        for path in (get_default_config().cache_dir / "models").glob("*/snapshots/*"):
            name = path.parents[1].name.replace("--", "/", 1)
            revision = "" if path.name == "master" else f"@{path.name}"
            nbytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            models.append(StoredModel(f"{_PREFIX}{name}{revision}", path, nbytes, path.name))
        return models

    def remove(self, model: StoredModel) -> None:
        shutil.rmtree(model.path)
        if not any(model.path.parent.iterdir()):
            shutil.rmtree(model.path.parents[1])


def _announce(api: Any, repository: str, revision: str | None) -> None:
    from modelscope_hub import get_default_config

    files = api.list_repo_files(repository, "model", revision=revision)
    kept = [
        file
        for file in files
        if any(fnmatch(file.path, pattern) for pattern in WANTED)
        and not any(fnmatch(file.path, pattern) for pattern in UNWANTED)
    ]
    cache = get_default_config().cache_dir
    folder = cache / "models" / repository.replace("/", "--") / "snapshots" / (revision or "master")
    sizes = [file.size for file in kept if not (folder / file.path).exists()]
    if sizes:
        announce(f"{repository} from {get_default_config().endpoint}", sizes, cache, "MODELSCOPE_CACHE")


def _callback(progress: Progress, check: Callable[[], None]) -> type[Any]:
    """Returns a class whose objects the library calls from its threads, one for each file."""
    from modelscope_hub import ProgressCallback

    lock = threading.Lock()

    class Bytes(ProgressCallback):
        def update(self, size: int) -> None:
            check()
            with lock:
                progress.advance(size)

    return Bytes


def _not_found(reference: str, cause: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"cannot fetch {reference} from ModelScope: {cause}",
        "Check the name and the network; MODELSCOPE_ENDPOINT names another site, MODELSCOPE_API_TOKEN gives access.",
    )
