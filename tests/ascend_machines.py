# SPDX-License-Identifier: Apache-2.0
"""Writes installations of Ascend's software, as their files look, into a temporary folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from atb_ascend import Finding, Level, Machine, Report, examine

TORCH_SYMBOL = {0: b"_ZN3c105ErrorC1ENS_14SourceLocationESs", 1: b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112"}


def write(path: Path, content: str | bytes = "") -> Path:
    """Writes a file with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@dataclass
class Box:
    """Holds a machine that tests take apart: everything works until a test changes it."""

    base: Path
    environ: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=lambda: {"torch": "2.9.0+cpu", "torch_npu": "2.9.0"})
    modules: set[str] = field(default_factory=lambda: {"_cpu", "_atb", "_atb_sim"})
    #: what does not load, by file or module name, and why
    broken: dict[str, str] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.base / "usr/local/Ascend"

    def machine(self) -> Machine:
        def loads(name: str) -> str | None:
            self.loaded.append(name)
            return self.broken.get(name)

        def module_file(name: str) -> Path | None:
            if name == "torch":
                return self.base / "site/torch/__init__.py" if "torch" in self.packages else None
            return self.base / "site/atb_core.so" if name.split(".")[-1] in self.modules else None

        return Machine(
            environ=self.environ,
            root=self.root,
            home=self.base / "home",
            etc=self.base / "etc",
            dev=self.base / "dev",
            package_version=self.packages.get,
            module_file=module_file,
            load_library=lambda path: loads(path.name),
            import_module=loads,
        )

    def examine(self) -> Report:
        return examine(self.machine())

    def finding(self, check: str) -> Finding:
        """Returns the one finding of a check."""
        (found,) = (finding for finding in self.examine().findings if finding.check == check)
        return found

    def levels(self) -> dict[str, Level]:
        return {finding.check: finding.level for finding in self.examine().findings}


def torch_package(box: Box, abi: int = 1) -> None:
    write(box.base / "site/torch/lib/libc10.so", b"\x7fELF\0" + TORCH_SYMBOL[abi] + b"basic_string\0")


def driver(box: Box, version: str = "25.0.rc1.1") -> Path:
    text = f"Version={version}\nascendhal_version=7.35.23\npackage_version={version}\n"
    write(box.base / "dev/davinci0")
    write(box.base / "dev/davinci_manager")
    return write(box.root / "driver/version.info", text)


def old_cann(box: Box, version: str = "8.2.RC1") -> Path:
    """Writes a toolkit as it was laid out before 8.5: ascend-toolkit/latest is a link to a version's folder."""
    home = box.root / "ascend-toolkit" / version
    write(home / "aarch64-linux/ascend_toolkit_install.info", f"package_name=Ascend-cann-toolkit\nversion={version}\n")
    write(home / "version.cfg", f"# version: 1.0\nruntime_running_version=[7.7.0.1.231:{version}]\n")
    write(home / "compiler/version.info", f"Version=7.7.0.1.231\nversion_dir={version}\n")
    write(home / "lib64/libascendcl.so")
    write(home / "lib64/libopapi.so")
    write(box.root / "ascend-toolkit/set_env.sh")
    latest = box.root / "ascend-toolkit/latest"
    os.symlink(home, latest)
    box.environ["ASCEND_HOME_PATH"] = box.environ["ASCEND_TOOLKIT_HOME"] = str(latest)
    return latest


def new_cann(box: Box, version: str = "8.5.0") -> Path:
    """Writes a toolkit as it is laid out since 8.5: cann links to cann-<version>, versions are in share/info."""
    home = box.root / f"cann-{version}"
    write(home / "aarch64-linux/ascend_toolkit_install.info", f"package_name=Ascend-cann-toolkit\nversion={version}\n")
    write(home / "share/info/runtime/version.info", f"Version={version}\ntimestamp=20260101\n")
    write(home / "lib64/libascendcl.so")
    write(home / "lib64/libopapi.so")
    write(home / "set_env.sh")
    os.symlink(home, box.root / "cann")
    box.environ["ASCEND_HOME_PATH"] = box.environ["ASCEND_TOOLKIT_HOME"] = str(home)
    return home


def nnal(box: Box, version: str = "8.5.0", abi: int = 1) -> Path:
    """Writes NNAL and returns the folder that set_env.sh makes ATB_HOME_PATH."""
    folder = box.root / "nnal/atb"
    write(
        folder / version / "version.info",
        f"    Ascend-cann-atb : {version}\n    Ascend-cann-atb Version : {version}.B100\n    Platform : aarch64\n",
    )
    for one in (0, 1):
        write(folder / version / f"atb/cxx_abi_{one}/lib/libatb.so")
    write(folder / "set_env.sh")
    os.symlink(folder / version, folder / "latest")
    home = folder / f"latest/atb/cxx_abi_{abi}"
    box.environ["ATB_HOME_PATH"] = str(home)
    return home


def good_box(base: Path) -> Box:
    """Writes everything of one version, in the layout since 8.5."""
    box = Box(base)
    torch_package(box)
    driver(box)
    new_cann(box)
    nnal(box)
    return box
