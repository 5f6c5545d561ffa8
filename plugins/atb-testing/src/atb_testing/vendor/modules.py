# SPDX-License-Identifier: Apache-2.0
"""Reads what msProbe saved of the modules of a torch model (level L0 or mix), such as one of transformers or vLLM.

The layout is in msProbe's page "Precision Data Collection in PyTorch": a folder `stepN/rankN` with `dump.json`, which
names modules as `Module.PATH.CLASS.forward.NUMBER`, and `dump_tensor_data` with their tensors.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from atb_core.files import open_regular, parse_json, read_file
from atb_testing.dump import INDEX, DumpError

# A model that is passed as a list has the number in the list before its modules' paths.
_MODULE = re.compile(r"Module\.(?:\d+\.)?(.+)\.([^.]+)\.forward\.(\d{1,9})")
_NO_NUMBER = re.compile(rb"(:\s*)(?:-?Infinity|NaN)\b")
_DATA = "dump_tensor_data"


class ModuleDump:
    """The outputs of modules, by path: `model.layers.0.self_attn`.

    Args:
        directory: the folder with `dump.json`.
        step: which run of the model, where the folder has several.

    Raises:
        DumpError: `dump.json` is damaged, or has no module with a tensor.
    """

    def __init__(self, directory: Path, step: int) -> None:
        self.directory = directory
        runs: dict[str, dict[int, tuple[str, dict[str, Any]]]] = {}
        for name, record in _data(directory / INDEX).items():
            match = _MODULE.fullmatch(name)
            if match and isinstance(record, dict):
                runs.setdefault(match[1], {})[int(match[3])] = match[2], record
        # A folder of one step has one run of each module.
        chosen = {path: found[step if step in found else min(found)] for path, found in runs.items()}
        self._records = chosen
        self._outputs = {path: tensor for path, (_, record) in chosen.items() if (tensor := _first(record, "output"))}
        if not self._outputs:
            raise DumpError(
                f"{directory} has no tensor that a module returned",
                hint='Dump modules with their tensors: "level": "L0" and "task": "tensor".',
            )

    def keys(self) -> list[str]:
        """Returns the paths of modules."""
        return list(self._outputs)

    def values(self) -> list[dict[str, Any]]:
        """Returns descriptions as `dump.json` of this project has them."""
        return [
            {"key": path, "op": self._records[path][0], "module": path, "source": "", "inputs": [], "leaves": []}
            for path in self._outputs
        ]

    def get_tensor(self, key: str) -> torch.Tensor:
        """Reads what a module returned; the first of several tensors."""
        return _load(self.directory / _DATA / self._outputs[key][0])

    def partners_of(self, values: Sequence[dict[str, Any]], sizes: dict[str, int]) -> dict[str, str]:
        """Returns for each value that leaves modules of the dump the outermost one, if the sizes agree."""
        return {
            value["key"]: path
            for value in values
            for path in sorted(value["leaves"], key=len, reverse=True)
            if path in self._outputs and sizes.get(value["key"]) == self._outputs[path][1]
        }

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Refuses a run of other tokens, where the embedding's input was saved.

        Raises:
            DumpError: they are others.
        """
        for path, (_, record) in self._records.items():
            given = _first(record, "input_args")
            if given is None or not path.endswith(("embed_tokens", "wte", "word_embeddings")):
                continue
            seen = _load(self.directory / _DATA / given[0]).flatten().tolist()
            if seen != list(tokens):
                raise DumpError(
                    f"{self.directory} began with {seen[:8]} and the step with {list(tokens)[:8]}",
                    hint="Dump both with the same tokens: `atb dump --token-ids 1,2,3`; --step chooses another step.",
                )


def _data(path: Path) -> dict[str, Any]:
    content = read_file(path, 1 << 28, DumpError) or b"{}"
    try:
        # The least value of a mask is -Infinity, which is no JSON.
        found = parse_json(_NO_NUMBER.sub(rb"\1null", content)).get("data")
    except ValueError as error:
        raise DumpError(f"{path} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


def _first(record: dict[str, Any], kind: str) -> tuple[str, int] | None:
    """Returns file and number of elements of the first tensor of `input_args` or `output`, if it was saved."""
    tensors = record.get(kind)
    first = tensors[0] if isinstance(tensors, list) and tensors else None
    if not isinstance(first, dict):
        return None
    name, shape = first.get("data_name"), first.get("shape")
    if not isinstance(name, str) or Path(name).name != name or not isinstance(shape, list):
        return None
    if not all(type(size) is int and size >= 0 for size in shape):
        return None
    return name, math.prod(shape)


def _load(path: Path) -> torch.Tensor:
    """Reads a tensor of `torch.save` by torch's reader that knows tensors alone and runs nothing."""
    if path.suffix != ".pt":
        raise DumpError(f"{path} is no .pt file, the only kind of tensors of modules that is read")
    try:
        with open(open_regular(path, DumpError), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # torch stores; a file that is compressed could be any size in memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in zipfile.ZipFile(file).infolist()):
                raise DumpError(f"{path} is compressed, which torch.save does not do")
            file.seek(0)
            value = torch.load(file, map_location="cpu", weights_only=True)
    except DumpError:
        raise
    except Exception as error:  # torch's reader raises what it likes for a damaged file
        raise DumpError(
            f"{path} cannot be read: {type(error).__name__}: {str(error).partition(chr(10))[0]:.200}"
        ) from None
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        raise DumpError(f"{path} has no dense tensor")
    if value.numel() * value.element_size() > size:
        raise DumpError(f"{path} has {size} bytes for a tensor {list(value.shape)} of {value.dtype}")
    return value


def find_modules(directory: Path) -> Path | None:
    """Returns the folder of one process and step of such a dump; `None` if there is none.

    Raises:
        DumpError: there are several, which the message names.
    """
    # A process without a rank has the folder `procPID`.
    places = [directory, *sorted(directory.glob("*")), *sorted(directory.glob("step*/*"))]
    found = [place for place in places if (place / _DATA).is_dir() and (place / INDEX).is_file()]
    if len(found) > 1:
        named = ", ".join(str(place.relative_to(directory)) for place in found[:8])
        raise DumpError(
            f"{directory} has {len(found)} dumps of modules: {named}{', ...' if len(found) > 8 else ''}",
            hint="Give the folder of one: a step, then the rank.",
        )
    return found[0] if found else None
