# SPDX-License-Identifier: Apache-2.0
"""Models on the Hugging Face hub: `OWNER/NAME[@REVISION]`, through the hub library's own cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atb_core.checkpoint.progress import BarProgress, Progress, default_progress
from atb_core.checkpoint.sources.cache import explained_disk_errors
from atb_core.errors import AtbError, ModelNotFoundError

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w][\w./-]*))?")
# Data only. Code (*.py) and pickles (*.bin, *.pt) are not fetched, so they cannot be run by accident.
_WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer*", "*.model"]
_UNWANTED = ["*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.so", "*/*", "consolidated*"]


def is_hub_id(reference: str) -> bool:
    """Whether `reference` has the form of a hub id."""
    return _HUB_ID.fullmatch(reference) is not None


def fetch_hub_model(reference: str, progress: Progress | None = None) -> Path:
    """The local snapshot of a hub repository; fetches what is not in the cache unless `HF_HUB_OFFLINE` is set.

    Raises:
        ModelNotFoundError: no such repository or revision, access denied, or not reachable and not cached.
        WeightsError: the disk is full.
    """
    match = _HUB_ID.fullmatch(reference)
    if match is None:
        raise ModelNotFoundError(f"{reference!r} is not a hub id", "Write OWNER/NAME or OWNER/NAME@REVISION.")
    from huggingface_hub import constants, snapshot_download

    shown = isinstance(default_progress() if progress is None else progress, BarProgress)
    try:
        with explained_disk_errors(Path(constants.HF_HUB_CACHE)):
            snapshot = snapshot_download(
                match["repo"],
                revision=match["revision"],
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                tqdm_class=_bars(shown),
            )
    except AtbError:
        raise
    except Exception as error:  # the library's errors span several of its own and its HTTP client's hierarchies
        raise _explain(reference, error) from error
    path = Path(snapshot)
    if not any(path.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"{reference} has no safetensors weights",
            "Choose a repository with .safetensors files, or fetch its .gguf file and pass that.",
        )
    return path


def _bars(shown: bool) -> type[Any]:
    """The hub library's progress bar, or the same switched off."""
    from huggingface_hub.utils.tqdm import tqdm

    original: Callable[..., None] = tqdm.__init__

    def start(bar: Any, *args: Any, **kwargs: Any) -> None:
        original(bar, *args, **{**kwargs, "disable": kwargs.get("disable") or not shown})

    return type("HubBar", (tqdm,), {"__init__": start})


def _explain(reference: str, error: Exception) -> ModelNotFoundError:
    from huggingface_hub import errors

    offline = "HF_HUB_OFFLINE is set" if isinstance(error, errors.OfflineModeIsEnabled) else None
    if isinstance(error, errors.GatedRepoError):
        cause, hint = "access is restricted", "Accept its licence on the hub and log in (hf auth login)."
    elif isinstance(error, errors.RevisionNotFoundError):
        cause, hint = "there is no such revision", "Check what follows the @."
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause, hint = "there is no such repository, or it is private", "Check the name, or log in (hf auth login)."
    elif isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        from huggingface_hub import constants

        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else offline
        cause = f"it is not in the cache and the hub is not reachable{f' ({offline})' if offline else ''}"
        hint = "Fetch it on a machine with access (hf download), or pass a model directory on this disk."
    else:
        text = str(error).strip().splitlines()
        cause, hint = f"{type(error).__name__}: {text[0] if text else ''}", "Check the network and try again."
    return ModelNotFoundError(f"cannot fetch {reference} from the hub: {cause}", hint)
