# SPDX-License-Identifier: Apache-2.0
"""A directory of installed packages that a test fills as pip would."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from atb_core.plugins import records
from atb_core.plugins.once import forget
from atb_core.plugins.registry import CONFIGS, MODELS, ROUTERS, FamilyRegistry, registry
from atb_core.plugins.scan import Environment, Installed, environment

GOOD = (
    "from atb_core.models.base.router import BaseRouter\nfrom atb_core.models.base.config import BaseConfig\n"
    "class Router(BaseRouter): ...\nclass Config(BaseConfig): ...\n"
)


@contextlib.contextmanager
def forgotten_afterwards(path: Path) -> Iterator[None]:
    """Begins without loaded plugins, and forgets those in `path` at the end."""
    before = set(sys.modules)
    forget()
    records._records.clear()
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(path)):
            del sys.modules[name]
    forget()
    records._records.clear()


class Site:
    """A site-packages directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def metadata(
        self,
        distribution: str,
        version: str = "1.0",
        entry_points: str | bytes | None = None,
        requires: Sequence[str] = (),
        summary: str = "",
    ) -> Path:
        """Writes the metadata of a package and returns its directory."""
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Summary: {summary}"] * bool(summary) + [f"Requires-Dist: {one}" for one in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n\nA description.\n", encoding="utf-8")
        if entry_points is not None:
            data = entry_points if isinstance(entry_points, bytes) else entry_points.encode()
            (info / "entry_points.txt").write_bytes(data)
        return info

    def family(
        self,
        distribution: str,
        model_type: str,
        version: str = "1.0",
        source: str = GOOD,
        *,
        requires: Sequence[str] = (),
        objects: Mapping[str, str] | None = None,
        api: Sequence[str] = ("1",),
    ) -> Path:
        """Installs a package that serves one model type with one module, and returns its metadata directory."""
        module = distribution.replace("-", "_")
        (self.path / f"{module}.py").write_text(source, encoding="utf-8")
        (self.path / f"{module}_models.py").write_text("", encoding="utf-8")
        if objects is None:
            objects = {
                ROUTERS: f"{module}:Router",
                CONFIGS: f"{module}:Config",
                MODELS: f"{module}_models:Model",
            }
        text = "".join(f"[{group}]\n{model_type} = {value}\n" for group, value in objects.items())
        text += "[atb_core.api]\n" + "".join(f"{number} = {module}\n" for number in api)
        return self.metadata(distribution, version, text, requires, summary=f"Serves {model_type}")

    def remove(self, info: Path) -> None:
        """Uninstalls what `family` or `metadata` wrote."""
        shutil.rmtree(info)

    def scan(self) -> Environment:
        """Makes what is installed here, and nowhere else, all that this process knows of; returns it."""
        forget()
        environment._values.append(Environment([str(self.path)]))
        return environment()

    def registry(self) -> FamilyRegistry:
        """The families that are installed here and nowhere else."""
        self.scan()
        return registry()

    def one(self) -> Installed:
        """The only plugin that is installed here."""
        (found,) = self.scan().installed
        return found


VARIABLES = ("ATB_PLUGINS", "ATB_NO_PLUGINS", "ATB_STRICT", "ATB_PLUGINS_PREFER", "ATB_PLUGIN_TIMEOUT", "ATB_CONFIG")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty directory on `sys.path`, and settings that say nothing."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with forgotten_afterwards(path):
        yield Site(path)


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the path of the settings file that is in force; it does not exist yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "settings" / "atb").mkdir(parents=True)
    return tmp_path / "settings" / "atb" / "config.toml"
