# SPDX-License-Identifier: Apache-2.0
"""Checks the contents of built wheels: `python tools/check_wheels.py dist/*.whl`.

Packages without extension modules are py3-none-any. Extension modules link neither torch nor libpython, use the stable
ABI from Python 3.12 on, and come with the licences and an SBOM of the code that is linked into them. Every entry point
names a module of the wheel; licence and type marker are included, tests are not.
"""

from __future__ import annotations

import argparse
import configparser
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

# The extension modules of each package that has any. The core's module over ATB is built only where ATB is installed.
_EXTENSIONS = {"atb_core": ["_cpu"], "atb_sim": ["_atb_sim"]}
# What is linked into them, with the file of its licence.
_LINKED = {"nanobind": "nanobind.txt", "robin-map": "robin-map.txt"}
# Libraries of every machine with a C++ runtime; another one would require the build's environment.
_SYSTEM_LIBRARIES = ("libstdc++.", "libm.", "libgcc_s.", "libc.", "libpthread.", "libdl.", "ld-linux")


def problems(wheel: Path) -> Iterator[str]:
    """Yields a sentence for each fault of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        distribution, _, tag = wheel.stem.partition("-")
        compiled = [name for name in names if name.endswith((".so", ".pyd"))]
        expected = _EXTENSIONS.get(distribution)
        if expected is None:
            if not tag.endswith("py3-none-any"):
                yield f"is tagged {tag}; a plugin is pure Python, py3-none-any"
            if compiled:
                yield f"holds compiled code: {', '.join(compiled)}"
        else:
            yield from _compiled_faults(archive, tag, compiled, expected)
        if f"{distribution}/py.typed" not in names:
            yield "has no py.typed, without which type checkers ignore its types"
        if not any(name.endswith("/licenses/LICENSE") for name in names):
            yield "has no license file"
        if any(name.split("/")[0] in ("tests", "docs", "csrc", "benchmarks") for name in names):
            yield "contains tests, docs or sources at its top level"
        yield from _dangling_entry_points(archive, names)


def _compiled_faults(archive: zipfile.ZipFile, tag: str, compiled: list[str], expected: list[str]) -> Iterator[str]:
    """Yields a sentence for each fault of a wheel that is special to compiled packages."""
    modules = sorted(name.split("/")[-1].split(".")[0] for name in compiled)
    if modules != expected:
        yield f"holds the extension modules {', '.join(modules) or 'none'} instead of {', '.join(expected)}"
    version = re.search(r"-cp3(\d+)-(\w+)-", f"-{tag}-")
    if version is None or (int(version[1]) >= 12 and (version[1], version[2]) != ("12", "abi3")):
        yield f"is tagged {tag}; from Python 3.12 on the tag is cp312-abi3, for all later versions"
    for name in compiled:
        for library in _needed(archive, name):
            if not library.startswith(_SYSTEM_LIBRARIES):
                yield f"{name} is linked to {library}"
    names = archive.namelist()
    for file in _LINKED.values():
        if not any(name.endswith(f"/licenses/licenses/{file}") for name in names):
            yield f"has no licence file {file} for code that is linked in"
    sboms = [
        json.loads(archive.read(name)) for name in names if re.search(r"\.dist-info/sboms/[\w-]+\.cdx\.json$", name)
    ]
    listed = {component["name"] for sbom in sboms for component in sbom["components"] if component.get("version")}
    if missing := sorted(_LINKED.keys() - listed):
        yield f"has no SBOM that lists {', '.join(missing)} with its version"


def _dangling_entry_points(archive: zipfile.ZipFile, names: list[str]) -> Iterator[str]:
    """Yields a sentence for each entry point whose module is not in the wheel."""
    files = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for file in files:
        parser.read_string(archive.read(file).decode("utf-8"))
    for group in parser.sections():
        for key, value in parser[group].items():
            path = value.partition(":")[0].strip().replace(".", "/")
            if f"{path}.py" not in names and f"{path}/__init__.py" not in names:
                yield f"the entry point {group}: {key} = {value} names no module of the wheel"


def _needed(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Returns the shared libraries that an ELF file requires, according to readelf."""
    with tempfile.TemporaryDirectory() as folder:
        path = archive.extract(name, folder)
        table = subprocess.run(["readelf", "--dynamic", path], capture_output=True, text=True, check=True).stdout
    return [line.split("[")[1].rstrip("] ") for line in table.splitlines() if "(NEEDED)" in line]


def main(argv: list[str] | None = None) -> int:
    """Prints a line for each wheel and each fault; returns 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    failed = False
    for wheel in parser.parse_args(argv).wheels:
        faults = list(problems(wheel))
        print(f"{wheel.name}: {'ok' if not faults else ''}")
        for fault in faults:
            print(f"  {fault}")
        failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
