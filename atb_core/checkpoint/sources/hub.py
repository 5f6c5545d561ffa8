# SPDX-License-Identifier: Apache-2.0
"""Models on the Hugging Face hub: `OWNER/NAME[@REVISION]`, through the hub library's own cache."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atb_core.checkpoint.progress import BarProgress, Progress, default_progress
from atb_core.checkpoint.sources.base import Source
from atb_core.errors import ModelNotFoundError, WeightsError

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w][\w./-]*))?")
# Data only. Code (*.py) and pickles (*.bin, *.pt) are not fetched, so they cannot be run by accident.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer*", "*.model"]
_UNWANTED = ["*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.so", "*/*", "consolidated*"]


class HubSource(Source):
    """Finds the snapshot of a hub repository in the cache or fetches it; never fetches if `HF_HUB_OFFLINE` is set."""

    form = "a hub id (OWNER/NAME)"

    def claims(self, reference: str) -> bool:
        return _HUB_ID.fullmatch(reference) is not None

    def fetch(self, reference: str, progress: Progress | None) -> Path:
        """Returns the directory of the snapshot; `ModelNotFoundError` if it has no safetensors."""
        match = _HUB_ID.fullmatch(reference)
        if match is None:
            raise ModelNotFoundError(f"{reference!r} is not a hub id", "Write OWNER/NAME or OWNER/NAME@REVISION.")
        from huggingface_hub import constants, snapshot_download

        shown = isinstance(default_progress() if progress is None else progress, BarProgress)
        try:
            snapshot = snapshot_download(
                match["repo"],
                revision=match["revision"],
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                tqdm_class=_bars(shown),
            )
        except Exception as error:  # the library's errors span several of its own and its HTTP client's hierarchies
            raise _explain_disk(constants.HF_HUB_CACHE, error) or _explain(reference, error) from error
        path = Path(snapshot)
        if not any(path.glob("*.safetensors")):
            raise ModelNotFoundError(
                f"{reference} has no safetensors weights",
                "Choose a repository with .safetensors files, or fetch its .gguf file and pass that.",
            )
        return path


def _bars(shown: bool) -> type[Any]:
    """Returns the hub library's progress bar, or the same switched off."""
    from huggingface_hub.utils.tqdm import tqdm

    original: Callable[..., None] = tqdm.__init__

    def start(bar: Any, *args: Any, **kwargs: Any) -> None:
        original(bar, *args, **{**kwargs, "disable": kwargs.get("disable") or not shown})

    return type("HubBar", (tqdm,), {"__init__": start})


def _explain_disk(cache: str, error: Exception) -> WeightsError | None:
    """Returns the error for a cache that cannot be written, `None` if `error` is about something else."""
    hint = "Set HF_HOME to a directory on a disk with room that you may write to."
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WeightsError(f"not enough disk space below {cache} to finish", hint)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return WeightsError(f"cannot write to {cache}: {os.strerror(number)}", hint)
    return None


def _explain(reference: str, error: Exception) -> ModelNotFoundError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        cause, hint = "access is restricted", "Accept its licence on the hub and log in (hf auth login)."
    elif isinstance(error, errors.RevisionNotFoundError):
        cause, hint = "there is no such revision", "Check what follows the @."
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause, hint = "there is no such repository, or it is private", "Check the name, or log in (hf auth login)."
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        offline = constants.HF_HUB_OFFLINE or isinstance(error, errors.OfflineModeIsEnabled)
        cause = f"it is not in the cache and the hub is not reachable{' (HF_HUB_OFFLINE is set)' if offline else ''}"
        hint = "Fetch it on a machine with access (hf download), or pass a model directory on this disk."
    else:
        first_line = str(error).strip().partition("\n")[0]
        cause, hint = f"{type(error).__name__}: {first_line}", "Check the network and try again."
    return ModelNotFoundError(f"cannot fetch {reference} from the hub: {cause}", hint)
