# SPDX-License-Identifier: Apache-2.0
"""Compiles the Ascend backend against a vendor's headers, without linking and without an Ascend machine.

    python tools/check_ascend_headers.py --acl DIR [--atb DIR] [--abi 0|1|both] [--cxx g++] [FILE ...]

Every torch_npu wheel contains the headers of ACL and HCCL: give the wheel, the folder of the installed package, its
include/third_party, or the include folder of a CANN toolkit. ATB's headers are part of NNAL only
($ATB_HOME_PATH/include); op-plugin's reduced headers are sufficient for some files. Without --atb, the declarations of
the simulator are used. The compiled files are csrc/atb/*.cpp and csrc/atb/checks/layout_check.cpp. The exit status is 1
if a file does not compile, and 2 if headers or a compiler are missing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIMULATOR = ROOT / "csrc/sim/include"
LAYOUT = ROOT / "csrc/atb/checks/layout_check.cpp"
_WHEEL_FOLDER = "torch_npu/include/third_party/"
# Since 8.3, atb/types.h includes this header of CANN, which torch_npu lacks; ATB only names its types.
_ACL_META = "#pragma once\n" + "".join(
    f"struct {name};\n" for name in ("aclTensor", "aclTensorList", "aclIntArray", "aclOpExecutor")
)


class MissingHeadersError(Exception):
    """Error for a given folder that lacks the expected headers."""


@dataclass(frozen=True)
class Headers:
    """Vendor headers to compile against.

    Attributes:
        folders: include folders in the order in which they are searched.
        notes: lines that describe the headers, for the report.
        reduced: `True` if ATB's headers are op-plugin's subset, which lacks the parameters of most operations.
        params: names of the parameter structs in ATB's headers.
    """

    folders: tuple[Path, ...]
    notes: tuple[str, ...]
    reduced: bool
    params: frozenset[str] = frozenset()


def find_headers(acl: Path, atb: Path | None, scratch: Path) -> Headers:
    """Finds the include folders in the given paths.

    Args:
        acl: a torch_npu wheel, or a folder that contains the headers of ACL and HCCL.
        atb: a folder that contains ATB's headers, or `None` for the simulator's declarations.
        scratch: an empty folder for unpacked and generated headers.

    Raises:
        MissingHeadersError: a header is missing; the message names it.
    """
    folders = list(acl_folders(acl, scratch))
    notes = [f"ACL, HCCL: {acl}"]
    if atb is None:
        # Use only ATB's headers of the simulator, because its folder also contains ACL's.
        _need(SIMULATOR, "atb/atb_infer.h", "the simulator's headers")
        link = scratch / "simulator"
        link.mkdir()
        (link / "atb").symlink_to(SIMULATOR / "atb")
        folder = link
        notes.append("ATB: the simulator's own declarations (only ACL's and HCCL's headers are the vendor's)")
    else:
        folder = next((path for path in (atb, atb / "include") if (path / "atb/atb_infer.h").is_file()), atb)
        _need(folder, "atb/atb_infer.h", "ATB's headers")
        notes.append(f"ATB: {folder}")
    folders.append(folder)
    params = (folder / "atb/infer_op_params.h").read_text(encoding="utf-8", errors="replace") if atb else ""
    reduced = atb is not None and "struct LinearParam" in params and "struct ActivationParam" not in params
    if not any((path / "aclnn/acl_meta.h").is_file() for path in folders):
        shim = scratch / "shim" / "aclnn"
        shim.mkdir(parents=True)
        (shim / "acl_meta.h").write_text(_ACL_META, encoding="utf-8")
        folders.append(shim.parent)
        notes.append("aclnn/acl_meta.h: a stand-in that declares its types")
    declared = frozenset(re.findall(r"\bstruct (\w+Param)\b", params))
    return Headers(tuple(folders), tuple(notes), reduced, declared)


def acl_folders(given: Path, scratch: Path) -> Iterator[Path]:
    """Yields the include folders of ACL and HCCL below the given path."""
    if given.suffix == ".whl":
        given = _unpack(given, scratch / "wheel")
    for folder in (given, given / "include/third_party", given / "third_party"):
        if (folder / "acl/inc/acl/acl.h").is_file():
            _need(folder, "hccl/inc/hccl/hccl_types.h", "HCCL's headers")
            yield from (folder / "acl/inc", folder / "hccl/inc")
            return
    folder = given if (given / "acl/acl.h").is_file() else given / "include"
    _need(folder, "acl/acl.h", "ACL's headers", given)
    _need(folder, "hccl/hccl_types.h", "HCCL's headers")
    yield folder


def _need(folder: Path, file: str, whose: str, shown: Path | None = None) -> None:
    """Raises MissingHeadersError unless the folder contains the file."""
    if not (folder / file).is_file():
        raise MissingHeadersError(f"{shown or folder} does not contain {whose}: {file} is missing")


def _unpack(wheel: Path, target: Path) -> Path:
    """Unpacks the third-party headers of a torch_npu wheel and returns their folder."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [name for name in archive.namelist() if name.startswith(_WHEEL_FOLDER) and ".." not in name]
            archive.extractall(target, wanted)
    except (OSError, zipfile.BadZipFile) as error:
        raise MissingHeadersError(f"{wheel} cannot be unpacked: {error}") from error
    return target / _WHEEL_FOLDER


def sources(files: Sequence[Path], headers: Headers) -> list[Path]:
    """Returns the files to compile: the given ones, or the backend and the layout check.

    With reduced headers, these are only the files whose parameter structs the headers contain.
    """
    if files:
        return list(files)
    backend = sorted((ROOT / "csrc/atb").glob("*.cpp"))
    if headers.reduced:
        backend = [path for path in backend if _used_params(path) <= headers.params]
    return [*backend, LAYOUT]


def _used_params(source: Path) -> set[str]:
    """Returns the parameter structs of ATB's operations that a file uses."""
    return set(re.findall(r"\binfer::(\w+Param)\b", source.read_text(encoding="utf-8")))


def compile_file(source: Path, headers: Headers, abi: int, cxx: str) -> str:
    """Compiles one file without output and returns the compiler's errors, empty if there are none."""
    command = [
        cxx, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
        *(["-DATB_CHECK_REDUCED"] if headers.reduced else []),
        f"-I{ROOT / 'csrc/include'}", f"-I{ROOT / 'csrc'}",
        *(f"-isystem{folder}" for folder in headers.folders), str(source),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"{cxx} ends with status {done.returncode}"


def check(files: Sequence[Path], headers: Headers, abis: Sequence[int], cxx: str) -> int:
    """Compiles all files for all ABIs, prints a line for each, and returns the number of failures."""
    tasks = [(abi, file) for abi in abis for file in files]
    failed = 0
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        results = pool.map(lambda task: compile_file(task[1], headers, task[0], cxx), tasks)
        for (abi, file), errors in zip(tasks, results, strict=True):
            name = file.resolve()
            shown = name.relative_to(ROOT) if name.is_relative_to(ROOT) else name
            print(f"{'FAIL' if errors else 'ok  '}  abi {abi}  {shown}", flush=True)
            if errors:
                print("\n".join(f"      {line}" for line in errors.splitlines()))
                failed += 1
    print(f"{len(tasks) - failed} of {len(tasks)} compile")
    return failed


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acl", type=Path, required=True, metavar="DIR", help="a torch_npu wheel, or a folder")
    parser.add_argument("--atb", type=Path, metavar="DIR", help="a folder with atb/; by default the simulator's")
    parser.add_argument("--abi", choices=("0", "1", "both"), default="both", help="_GLIBCXX_USE_CXX11_ABI")
    parser.add_argument("--cxx", default="g++", help="the compiler")
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="files to compile instead of the backend's sources"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the headers that are used and a line for each file; returns the exit status."""
    args = _arguments(argv)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            headers = find_headers(args.acl.resolve(), args.atb and args.atb.resolve(), Path(scratch))
            files = sources(args.files, headers)
            if missing := [str(file) for file in files if not file.is_file()]:
                raise MissingHeadersError(f"no such file: {', '.join(missing)}")
            subprocess.run([args.cxx, "--version"], capture_output=True, check=True)
        except MissingHeadersError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"error: the compiler {args.cxx} cannot be run: {error}", file=sys.stderr)
            return 2
        print("\n".join(headers.notes))
        if headers.reduced and not args.files:
            print("these are op-plugin's reduced headers: files that use other operations are not compiled")
        return int(check(files, headers, (0, 1) if args.abi == "both" else (int(args.abi),), args.cxx) > 0)


if __name__ == "__main__":
    sys.exit(main())
