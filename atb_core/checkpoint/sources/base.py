# SPDX-License-Identifier: Apache-2.0
"""Interface of the places that checkpoints come from, and the extension point for further ones."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from atb_core.checkpoint.progress import Progress
from atb_core.errors import WeightsError
from atb_core.extensions import Extensions
from atb_core.names import command

__all__ = ["UNWANTED", "WANTED", "Source", "StoredModel", "announce", "disk_error"]


@dataclass(frozen=True)
class StoredModel:
    """Describes a model that a source keeps on this machine.

    Attributes:
        reference: what a user writes to open it.
        path: its file or directory.
        nbytes: bytes on the disk.
        revision: its revision or version in the source's own terms; empty if there is none.
    """

    reference: str
    path: Path
    nbytes: int
    revision: str = ""


#: Patterns of the files to fetch, and of those to leave.
# Data only. Code (*.py) and pickles (*.bin, *.pt) are not fetched, so they cannot be run by accident.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer*", "*.model"]
UNWANTED = ["*.py", "*.bin", "*.pt", "*.pth", "*.pkl", "*.so", "consolidated*"]
# Of the folders only that of templates and that which says how vectors are made: the patterns cannot say "but", so each
# is about one letter of their names.
_FOLDERS = ("additional_chat_templates", "1_Pooling")
UNWANTED += ["[!a1]*/*", *(f"{name[:n]}[!{name[n]}]*/*" for name in _FOLDERS for n in range(1, len(name)))]


class Source(ABC):
    """A place that checkpoints come from, which it makes files on this machine.

    Attributes:
        form: the form of its references, for messages, such as `"a hub id (OWNER/NAME)"`.
        last: true if it is asked after all others, because references of theirs may have its form.
    """

    form: ClassVar[str]
    last: ClassVar[bool] = False

    def __str__(self) -> str:
        return f"the source of {self.form}"

    @abstractmethod
    def claims(self, reference: str) -> bool:
        """Returns true if `reference` has the form of this source; looks only at the text and the disk."""

    @abstractmethod
    def fetch(self, reference: str, progress: Progress | None) -> Path:
        """Returns the file or directory that `reference` names, fetched first if it is not on this machine.

        Args:
            reference: one that `claims` accepts.
            progress: receives the fetched bytes; `None`: a bar if standard error is a terminal.

        Raises:
            ModelNotFoundError: nothing has that name, or it cannot be reached.
            WeightsError: the fetched files are damaged or cannot be trusted, or the disk is full.
        """

    def stored(self) -> Sequence[StoredModel]:
        """Returns the models that it keeps on this machine, partly fetched ones included; reads no weights."""
        return ()

    def remove(self, model: StoredModel) -> None:
        """Removes one of `stored` from the disk."""
        raise NotImplementedError(f"{self} keeps no models")


SOURCES: Extensions[Source] = Extensions("atb_checkpoint_sources", Source, name="form")


def announce(what: str, sizes: Collection[int], directory: Path, variable: str) -> None:
    """Says on standard error what a fetch will move.

    Args:
        what: the model, and where it comes from.
        sizes: the bytes of each file that is not on this machine.
        directory: where they will be put.
        variable: the environment variable that names this directory.

    Raises:
        WeightsError: there is no room for them.
    """
    total = sum(sizes)
    print(f"Fetching {what}: {total / 1e6:,.1f} MB in {len(sizes)} files, to {directory}", file=sys.stderr)
    existing = next(folder for folder in (directory, *directory.parents) if folder.exists())
    if (free := shutil.disk_usage(existing).free) < total:
        raise WeightsError(
            f"{what} needs {total / 1e6:,.0f} MB below {directory}, where {free / 1e6:,.0f} MB are free",
            f"Set {variable} to a directory on a disk with room, or free some: {command('models')} lists what may go.",
        )


def disk_error(error: BaseException, directory: Path, variable: str) -> WeightsError | None:
    """Returns the error for a full disk, or one that cannot be written; `None` if `error` is about something else.

    `variable` is the environment variable that names the `directory`.
    """
    hint = f"Set {variable} to a directory that you may write to, on a disk with room."
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WeightsError(f"not enough disk space below {directory} to finish", hint)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return WeightsError(f"cannot write to {directory}: {os.strerror(number)}", hint)
    return None
