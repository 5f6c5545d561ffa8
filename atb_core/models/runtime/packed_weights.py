# SPDX-License-Identifier: Apache-2.0
"""Keeps a model's packed weights in a file, which every process that opens the model maps instead of packing them.

The file is used only while all that its bytes depend on is the same: the checkpoint's files, the options, and the code
that reads and packs them. Its place depends on the checkpoint's path and the options, so that a file which is out of
date is replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from atb_core.errors import AtbError, BackendUnavailableError, RequestError
from atb_core.files import user_folder, user_path
from atb_core.settings import settings

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint, WeightLoader
    from atb_core.engine.native import NativeStore

SUFFIX = ".packed"
_PARTIAL = ".partial"
# A partial file of this age, in seconds, was left by a process that was killed.
_ABANDONED = 3600
# Seconds between the steps of the clock by which systems mark changes of files.
_CLOCK_STEP = 0.02

_log = logging.getLogger(__name__)


def packed_folder(choice: bool | str | os.PathLike[str] | None, backend: str = "cpu") -> Path | None:
    """Returns the folder that `cache_packed` chooses; `None` if nothing is kept."""
    if choice is None:
        choice = settings().cache_packed if backend == "cpu" else False
    if isinstance(choice, bool):
        return user_folder(os.environ, "XDG_CACHE_HOME", ".cache") / "packed" if choice else None
    return user_path(os.fspath(choice), RequestError).absolute()


def stored_files(folder: Path) -> list[Path]:
    """Returns the files of packed weights in a folder, also those that were not finished."""
    return sorted(path for path in folder.glob("*") if path.suffix in (SUFFIX, _PARTIAL) and path.is_file())


class PackedWeights:
    """The file of one model's packed weights.

    Args:
        folder: the folder of the file; made if it is missing.
        layout: name of the engine's layouts, `Backend.packed_layout`.
        checkpoint: the model's files.
        options: what the bytes depend on besides, as JSON.
        sources: objects whose packages decide about the bytes.

    Raises:
        BackendUnavailableError: the engine has no such layout.
    """

    def __init__(
        self, folder: Path, layout: str | None, checkpoint: Checkpoint, options: object, sources: Sequence[object]
    ) -> None:
        if layout is None:
            raise BackendUnavailableError(
                "cache_packed: this backend packs no weights that could be kept",
                hint="Use backend='cpu', or leave cache_packed out.",
            )
        path = checkpoint.path.absolute()
        self._place, self._config = json.dumps([str(path), layout, options]), checkpoint.config()
        self._sources, self._checkpoint = sources, path
        title = re.sub(r"[^\w.-]+", "-", "-".join(path.parts[-3:]).strip("-/."))[-80:].lstrip(".-")
        self.folder = folder
        self.path = folder / f"{title}-{hashlib.sha256(self._place.encode()).hexdigest()[:16]}{SUFFIX}"
        self._identity: object = ()

    def load(self, store: NativeStore, loader: WeightLoader) -> bool:
        """Maps the file into `store`; returns false if there is none, or it cannot be used, which a warning says."""
        self._identity = self._identities(loader)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            _log.warning("%s is not used: %s", self.path, error.strerror)
            return False
        try:
            status = os.fstat(descriptor)
            kind = None if stat.S_ISREG(status.st_mode) else "it is no file"
            fault = _fault(self.folder.stat()) or _fault(status) or kind
            if fault is not None:
                _log.warning("%s is not used: %s", self.path, fault)
                return False
            return store.load(descriptor, status.st_size, self._key())
        except (AtbError, OSError) as error:
            _log.warning("%s is not used, and made anew: %s", self.path, error)
            return False
        finally:
            os.close(descriptor)

    def save(self, store: NativeStore, loader: WeightLoader) -> None:
        """Writes the file if the checkpoint is what it was at `load`; a warning says why if it cannot be written."""
        # A change from now on has another time than one before `load`.
        time.sleep(_CLOCK_STEP)
        if not loader.identity() or self._identities(loader) != self._identity:
            _log.warning("packed weights are not kept: it is not known that %s did not change", loader.source)
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (fault := _fault(self.folder.stat())) is not None:
                raise PermissionError(0, fault)
            for path in self.folder.glob(f"*{_PARTIAL}"):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
            _log.warning("writing %.1f MB of packed weights to %s, once", store.nbytes / 1e6, self.path)
            self._write(store)
        except (AtbError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else error
            _log.warning("packed weights are not kept in %s: %s", self.folder, text)

    def _write(self, store: NativeStore) -> None:
        partial = self.path.with_suffix(f".{os.getpid()}{_PARTIAL}")
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            store.save(descriptor, self._key())
            os.fsync(descriptor)
            partial.replace(self.path)
        finally:
            os.close(descriptor)
            partial.unlink(missing_ok=True)

    def _identities(self, loader: WeightLoader) -> object:
        """Returns what changes with the files of the weights and the JSON beside them, such as a quantisation's."""
        folder = self._checkpoint if self._checkpoint.is_dir() else self._checkpoint.parent
        stats = [(path.name, path.stat()) for path in sorted(folder.glob("*.json"))]
        beside = [[name, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns] for name, each in stats]
        return [loader.identity(), beside]

    def _key(self) -> str:
        content = json.dumps([self._place, self._config, self._identity], sort_keys=True, default=str)
        return hashlib.sha256((content + _code(self._sources)).encode()).hexdigest()


def _fault(status: os.stat_result) -> str | None:
    """Returns why a file or folder is not to be trusted."""
    if status.st_uid != os.geteuid():
        return f"it belongs to the user {status.st_uid}"
    return "others may write to it" if status.st_mode & 0o022 else None


def _code(sources: Sequence[object]) -> str:
    """Returns a digest of the files of the core and of the packages that define the classes of `sources`."""
    digest = hashlib.sha256()
    for name in sorted({"atb_core", *(type(each).__module__.partition(".")[0] for each in sources)}):
        file = Path(getattr(sys.modules[name], "__file__", None) or os.devnull)
        files = file.parent.rglob("*") if file.name == "__init__.py" else [file]
        for path in sorted(path for path in files if path.suffix in (".py", ".so")):
            digest.update(f"{name} {path.relative_to(file.parent)}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
