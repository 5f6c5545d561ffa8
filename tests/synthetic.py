# SPDX-License-Identifier: Apache-2.0
"""Plugin distributions by the hundred: healthy ones, and one for each way in which a plugin can be broken.

`install` writes what pip would have written. A `Flaw` edits one healthy package before it is written; `says` is what
a diagnosis must contain to count as having found the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROUTER = "from atb_core.models.base.router import BaseRouter\n\n\nclass Router(BaseRouter):\n    pass\n"
CONFIG = (
    "from dataclasses import dataclass\n\nfrom atb_core.models.base.config import BaseConfig\n\n\n"
    "@dataclass\nclass Config(BaseConfig):\n    pass\n"
)
FLASH = (
    "from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph\n\n\n"
    "@torch_to_mindie_graph()\nclass Flash(FlashCausalLMV3):\n"
    "    def forward(self, **kwargs):\n        return {}\n"
)


@dataclass
class Package:
    """One distribution before it is written: its files by their path below the site directory."""

    number: int
    version: str = "1.0"
    files: dict[str, str | bytes] = field(default_factory=dict)
    stale: dict[str, str | bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        module = self.module
        self.files = {
            f"{module}/__init__.py": "",
            f"{module}/router.py": ROUTER,
            f"{module}/config.py": CONFIG,
            f"{module}/flash.py": FLASH,
            self.metadata: f"Metadata-Version: 2.1\nName: {self.distribution}\nVersion: {self.version}\n"
            f"Summary: Synthetic family {self.number}\nRequires-Dist: atb-core\n",
            self.entries: f"[atb_core.routers]\n{self.model_type} = {module}.router:Router\n"
            f"[atb_core.configs]\n{self.model_type} = {module}.config:Config\n"
            f"[atb_core.models]\n{self.model_type} = {module}.flash:Flash\n"
            f"[atb_core.api]\n1 = {module}\n",
        }

    @property
    def module(self) -> str:
        return f"atb_synthetic_{self.number:03}"

    @property
    def distribution(self) -> str:
        return f"atb-synthetic-{self.number:03}"

    @property
    def model_type(self) -> str:
        return f"synthetic_{self.number:03}"

    @property
    def info(self) -> str:
        return f"{self.module}-{self.version}.dist-info"

    @property
    def metadata(self) -> str:
        return f"{self.info}/METADATA"

    @property
    def entries(self) -> str:
        return f"{self.info}/entry_points.txt"

    def replace(self, path: str, old: str, new: str) -> None:
        """Changes the text of a file; the text must be there."""
        text = self.files[path]
        assert isinstance(text, str) and old in text
        self.files[path] = text.replace(old, new)

    def append(self, path: str, text: str) -> None:
        """Adds to a text file."""
        self.files[path] = f"{self.files[path]!s}{text}"


@dataclass(frozen=True)
class Flaw:
    """One way to be broken, or (`broken=False`) one that a diagnosis only warns of."""

    name: str
    edit: Callable[[Package], None]
    says: tuple[str, ...]
    broken: bool = True


@dataclass(frozen=True)
class Synthetic:
    """One installed distribution; `flaw` is None for a healthy one."""

    distribution: str
    module: str
    model_type: str
    flaw: Flaw | None


def router_source(source: str) -> Callable[[Package], None]:
    """An edit that puts another text into the router's module."""

    def edit(package: Package) -> None:
        package.files[f"{package.module}/router.py"] = source.format(module=package.module)

    return edit


def metadata_lines(lines: str) -> Callable[[Package], None]:
    """An edit that adds to the package's METADATA."""
    return lambda package: package.append(package.metadata, lines)


def entry(old: str, new: str) -> Callable[[Package], None]:
    """An edit of the package's entry points; `{module}` and `{type}` stand for its own."""

    def edit(package: Package) -> None:
        names = {"module": package.module, "type": package.model_type}
        package.replace(package.entries, old.format(**names), new.format(**names))

    return edit


def _not_utf8(path: Callable[[Package], str]) -> Callable[[Package], None]:
    def edit(package: Package) -> None:
        name = path(package)
        package.files[name] = str(package.files[name]).encode() + b"# caf\xe9\n"

    return edit


def _circular(package: Package) -> None:
    package.files[f"{package.module}/router.py"] = f"from {package.module}.config import Config\n{ROUTER}"
    package.files[f"{package.module}/config.py"] = f"from {package.module}.router import Router\n{CONFIG}"


def _without_metadata(package: Package) -> None:
    del package.files[package.metadata]


def _stale_egg_info(package: Package) -> None:
    package.stale[f"{package.module}.egg-info/PKG-INFO"] = (
        f"Metadata-Version: 2.1\nName: {package.distribution}\nVersion: 0.9\n"
    )


FLAWS: tuple[Flaw, ...] = (
    Flaw("import error", router_source("from {module}.config import Settings\n"), ("ImportError", "Settings")),
    Flaw("syntax error", router_source("class Router(:\n"), ("SyntaxError", "router.py")),
    Flaw("wrong class", router_source("class Router:\n    pass\n"), ("BaseRouter",)),
    Flaw("undeclared dependency", router_source("import absent_library\n" + ROUTER), ("absent_library",)),
    Flaw("missing dependency", metadata_lines("Requires-Dist: synthetic-absent>=2\n"), ("pip install", "absent")),
    Flaw("another API version", entry("[atb_core.api]\n1 =", "[atb_core.api]\n99 ="), ("API", "99")),
    Flaw("another core", metadata_lines("Requires-Dist: atb-core>=99,<100\n"), ("atb-core", "99")),
    Flaw("endless import", router_source("while True:\n    pass\n"), ("did not end",)),
    Flaw("circular import", _circular, ("ImportError", "circular")),
    Flaw("exit at import", router_source("raise SystemExit(3)\n"), ("SystemExit",)),
    Flaw("death at import", router_source("import os\nos._exit(7)\n"), ("process",)),
    Flaw("quiet death at import", router_source("import os\nos._exit(0)\n"), ("exit status 0",)),
    Flaw("endless C code", router_source("import re\nre.match('(a+)+$', 'a' * 64 + 'b')\n"), ("did not end",)),
    Flaw(
        "a loop that catches all",
        router_source("while True:\n    try:\n        while True: pass\n    except BaseException: pass\n"),
        ("did not end",),
    ),
    Flaw("a long number", metadata_lines(f"Requires-Dist: torch>={'9' * 9000}\n"), ("invalid requirement",)),
    Flaw("contested (first)", entry("{type} =", "synthetic_contested ="), ("synthetic_contested", "prefer")),
    Flaw("contested (second)", entry("{type} =", "synthetic_contested ="), ("synthetic_contested", "prefer")),
    Flaw("missing module", entry("{module}.router:", "{module}.routing:"), ("routing",)),
    Flaw("missing attribute", entry(":Router", ":Rooter"), ("Rooter",)),
    Flaw("METADATA not UTF-8", _not_utf8(lambda package: package.metadata), ("METADATA", "UTF-8")),
    Flaw("entry points not UTF-8", _not_utf8(lambda package: package.entries), ("entry_points.txt", "UTF-8")),
    Flaw("malformed entry point", entry("{module}.router:Router", "the router: {module}"), ("the router",)),
    Flaw("METADATA missing", _without_metadata, ("METADATA",)),
    Flaw("no router", entry("[atb_core.routers]\n{type} = {module}.router:Router\n", ""), ("atb_core.routers",)),
    Flaw("stale egg-info", _stale_egg_info, ("egg-info", "stale")),
)
BLEMISHES: tuple[Flaw, ...] = (
    Flaw("torch at import", router_source("import torch\n" + ROUTER), ("torch",), broken=False),
    Flaw(
        "threads at import",
        router_source("import threading, time\nthreading.Thread(target=time.sleep, args=(5,)).start()\n" + ROUTER),
        ("starts 1 threads",),
        broken=False,
    ),
    Flaw("slow import", router_source("import time\ntime.sleep(0.7)\n" + ROUTER), ("slow",), broken=False),
    Flaw("no API version", entry("[atb_core.api]\n1 = {module}\n", ""), ("atb_core.api",), broken=False),
)


def install(site: Path, count: int = 200) -> tuple[list[Synthetic], list[Path]]:
    """Writes `count` distributions, one for each flaw and blemish among them.

    Returns them, and the directories to put on the import path, in order.
    """
    flaws = {6 * index + 7: flaw for index, flaw in enumerate(FLAWS + BLEMISHES)}
    assert max(flaws) < count
    written = []
    stale = site.parent / f"{site.name}-stale"
    for number in range(count):
        package = Package(number)
        flaw = flaws.get(number)
        if flaw is not None:
            flaw.edit(package)
        for folder, files in ((site, package.files), (stale, package.stale)):
            write(folder, files)
        written.append(Synthetic(package.distribution, package.module, package.model_type, flaw))
    return written, [stale, site]


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """Writes `files` below `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
