# SPDX-License-Identifier: Apache-2.0
"""Installs packages with hooks as pip would, for one test."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_directory import forgotten_afterwards

from atb_core.plugins.once import forget
from atb_core.plugins.records import LoadRecord, Status, records
from atb_core.plugins.scan import HOOKS, ROUTERS, installed


class Site:
    """A directory on `sys.path` where packages are installed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, distribution: str, source: str, version: str = "1.0", group: str = "atb_core.plugins") -> str:
        """A package with one module, whose hooks are in `source`; returns the module's name."""
        module = distribution.replace("-", "_")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        (info / "entry_points.txt").write_text(
            f"[{group}]\nhooks = {module}\n[atb_core.api]\n1 = {module}\n", encoding="utf-8"
        )
        forget()
        return module


def _disable(config: Path, keep: frozenset[str] = frozenset()) -> None:
    """Writes settings that disable installed packages with hooks, except those with an entry in a group of `keep`."""
    groups = {one.key: {entry.group for entry in one.entries} for one in installed()}
    others = [key for key, found in groups.items() if HOOKS in found and not found & keep]
    config.write_text(f"[plugins]\ndisabled = {others!r}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site; nothing of it is known afterwards. No setting of the machine is seen, nor other hook packages."""
    path = tmp_path / "site"
    path.mkdir()
    for name in ("ATB_PLUGINS", "ATB_NO_PLUGINS", "ATB_STRICT", "ATB_PLUGINS_PREFER"):
        monkeypatch.delenv(name, raising=False)
    _disable(tmp_path / "config.toml")
    monkeypatch.setenv("ATB_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.syspath_prepend(str(path))
    with forgotten_afterwards(path):
        yield Site(path)


@pytest.fixture
def families(site: Site, tmp_path: Path) -> None:
    """Makes the installed families, whose packages have hooks too, known beside the site."""
    _disable(tmp_path / "config.toml", frozenset({ROUTERS}))
    forget()


def failures() -> list[LoadRecord]:
    """The records of what failed."""
    return [record for record in records() if record.status is Status.FAILED]


FAMILY = """
    from dataclasses import dataclass

    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
    from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
    from atb_core.models.base.router import BaseRouter


    @dataclass
    class ToyConfig(BaseConfig):
        model_type: str = "toy"


    @dataclass
    class ToyRouter(BaseRouter):
        tool_parser = "toy-tools"


    @torch_to_mindie_graph()
    class FlashToyForCausalLM(DecoderCausalLM):
        pass
"""


def install_family(site: Site) -> None:
    """The family of the model type `toy`, without hooks: core's decoder as it is."""
    module = site.install("atb-toy", FAMILY)
    (site.path / f"{module}-1.0.dist-info" / "entry_points.txt").write_text(
        f"[atb_core.routers]\ntoy = {module}:ToyRouter\n[atb_core.configs]\ntoy = {module}:ToyConfig\n"
        f"[atb_core.models]\ntoy = {module}:FlashToyForCausalLM\n[atb_core.api]\n1 = {module}\n",
        encoding="utf-8",
    )
    forget()
