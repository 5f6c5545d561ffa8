# SPDX-License-Identifier: Apache-2.0
"""Creates folders with the layout of an installed CANN toolkit and ATB whose libraries are the simulator.

    python tools/stand_in_ascend.py DIR

The backend for a card can be built, linked and loaded with them on a machine without Ascend software; the folders
contain nothing of the vendor's. The command prints the environment variables that the vendor's set_env.sh would set,
one on each line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SIMULATOR = Path(__file__).resolve().parent.parent / "csrc/sim"
VERSION = "8.5.0"
# Sources of the simulator that belong to ACL; all others belong to ATB.
ACL = ("acl", "memory", "state", "stream")
CXX = os.environ.get("CXX", "g++")
FLAGS = ["-std=c++20", "-O1", "-fPIC", "-ffp-contract=off", f"-I{SIMULATOR / 'include'}", f"-I{SIMULATOR / 'src'}"]
# The layout checks also need the types of the core.
FLAGS += [f"-I{SIMULATOR.parent}", f"-I{SIMULATOR.parent / 'include'}"]


def make(folder: Path) -> dict[str, str]:
    """Builds both installations under `folder` and returns the environment variables that name them."""
    cann, atb = folder / f"cann-{VERSION}", folder / f"nnal/atb/{VERSION}/atb/cxx_abi_1"
    for home, parts in ((cann, ("acl", "hccl")), (atb, ("atb",))):
        for part in parts:
            shutil.copytree(SIMULATOR / "include" / part, home / "include" / part, dirs_exist_ok=True)
    write(cann / "aarch64-linux/ascend_toolkit_install.info", f"version={VERSION}\n")
    write(folder / f"nnal/atb/{VERSION}/version.info", f"    Ascend-cann-atb : {VERSION}\n")
    libatb, libascendcl = atb / "lib/libatb.so", cann / "lib64/libascendcl.so"
    for library in (libatb, libascendcl):
        library.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted(SIMULATOR.glob("src/**/*.cpp"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: compiled(source, folder / "objects"), sources))
    acl = [one for one in objects if one.stem in ACL]
    aclnn = [one for one in objects if one.parent.name == "aclnn"]
    link(libascendcl, acl)
    link(libatb, [one for one in objects if one not in acl + aclnn], f"-L{libascendcl.parent}", "-lascendcl")
    # The library of operations, which is only loaded.
    folders = [f"-L{libascendcl.parent}", f"-L{libatb.parent}"]
    link(cann / "lib64/libopapi.so", aclnn, *folders, "-latb", "-lascendcl")
    paths = [str(libatb.parent), str(libascendcl.parent), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "ATB_HOME_PATH": str(atb),
        "ASCEND_HOME_PATH": str(cann),
        "ASCEND_TOOLKIT_HOME": str(cann),
        "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
    }


def write(file: Path, text: str) -> None:
    """Writes a text file and creates its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def compiled(source: Path, objects: Path) -> Path:
    """Compiles one source of the simulator and returns the object file."""
    target = objects / source.relative_to(SIMULATOR).with_suffix(".o")
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([CXX, *FLAGS, "-c", str(source), "-o", str(target)], check=True)
    return target


def link(library: Path, objects: list[Path], *options: str) -> None:
    """Links a shared library from object files."""
    names = [str(one) for one in objects]
    subprocess.run([CXX, "-shared", f"-Wl,-soname,{library.name}", "-o", str(library), *names, *options], check=True)


def main() -> int:
    """Prints the environment variables, one on each line; returns 1 if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder to create them in; existing files are overwritten"
    )
    arguments = parser.parse_args()
    try:
        environment = make(arguments.folder.resolve())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"stand_in_ascend: {error}", file=sys.stderr)
        return 1
    for name, value in environment.items():
        print(f"{name}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
