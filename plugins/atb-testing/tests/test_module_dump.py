# SPDX-License-Identifier: Apache-2.0
"""`atb compare` reads what msProbe saves of the modules of a torch model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atb_testing import open_model, tiny_checkpoint
from atb_testing.compare import compare
from atb_testing.dump import DumpError, dump
from atb_testing.vendor.modules import ModuleDump, find_modules

TOKENS = [3, 1, 4, 1, 5, 9]
MLP = "model.layers.1.mlp"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("model"), "qwen2")
    directory = tmp_path_factory.mktemp("dump")
    dump(open_model(checkpoint, "reference"), TOKENS, directory, leave_out=["All"])
    return directory


def described(tensor: torch.Tensor, name: str) -> dict[str, Any]:
    """One tensor in dump.json."""
    kind = {"type": "torch.Tensor", "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
    return {**kind, "Max": 1.0, "Min": float("-inf"), "Mean": None, "Norm": None, "data_name": name}


def saved(ours: Path, directory: Path, error: float = 0.0, tokens: list[int] = TOKENS[:-1]) -> Path:
    """Writes the prefill of our dump as msProbe writes the modules of transformers' model of the same weights."""
    values = json.loads((ours / "dump.json").read_text())["variants"]["prefill"]
    tensors = load_file(ours / "step-0000-prefill.safetensors")
    place = directory / "step0" / "proc77"
    (place / "dump_tensor_data").mkdir(parents=True)
    data = {}
    for value in values:
        for path in value["leaves"]:
            name = f"Module.{path}.Some.forward.0"
            output = tensors[value["key"]][None] + (error if path == MLP else 0.0)
            torch.save(output, place / "dump_tensor_data" / f"{name}.output.0.pt")
            data[name] = {"input_args": [], "input_kwargs": {}, "output": [described(output, f"{name}.output.0.pt")]}
    name = "Module.model.embed_tokens.Some.forward.0"
    torch.save(torch.tensor([tokens]), place / "dump_tensor_data" / f"{name}.input.0.pt")
    data[name]["input_args"] = [described(torch.tensor([tokens]), f"{name}.input.0.pt")]
    index = {"task": "tensor", "level": "L0", "framework": "pytorch", "dump_data_dir": "elsewhere", "data": data}
    (place / "dump.json").write_text(json.dumps(index))
    return place


def test_modules_are_compared_by_their_paths(ours: Path, tmp_path: Path) -> None:
    place = saved(ours, tmp_path)
    result = compare(ours, tmp_path)
    assert result.first is None
    assert result.equal == result.compared > 15
    assert find_modules(tmp_path) == find_modules(tmp_path / "step0") == find_modules(place) == place


def test_a_wrong_module_is_found(ours: Path, tmp_path: Path) -> None:
    saved(ours, tmp_path, error=0.5)
    found = compare(ours, tmp_path).first
    assert found is not None
    assert MLP in found.value["leaves"]


def test_other_tokens_and_the_wrong_order_are_refused(ours: Path, tmp_path: Path) -> None:
    saved(ours, tmp_path, tokens=[3, 1, 4, 1, 6])
    with pytest.raises(DumpError, match=r"began with \[3, 1, 4, 1, 6\] and the step with \[3, 1, 4, 1, 5\]"):
        compare(ours, tmp_path)
    with pytest.raises(DumpError, match="is a dump of msProbe's"):
        compare(tmp_path, ours)


def test_several_steps_have_to_be_chosen_from(ours: Path, tmp_path: Path) -> None:
    place = saved(ours, tmp_path)
    (place.parent / "rank1").mkdir()
    (place.parent / "rank1" / "dump_tensor_data").mkdir()
    (place.parent / "rank1" / "dump.json").write_text("{}")
    with pytest.raises(DumpError, match="has 2 dumps of modules: step0/proc77, step0/rank1"):
        compare(ours, tmp_path)


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('code of a dump ran')",))


@pytest.mark.parametrize("kind", ["code", "compressed", "text", "list", "expanded", "cut"])
def test_files_that_are_no_plain_tensors_are_refused(ours: Path, tmp_path: Path, kind: str) -> None:
    place = saved(ours, tmp_path)
    path = place / "dump_tensor_data" / f"Module.{MLP}.Some.forward.0.output.0.pt"
    if kind == "code":
        torch.save(Hostile(), path)
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "expanded":
        torch.save(torch.zeros(1).expand(1 << 40), path)
    elif kind == "text":
        path.write_text("no tensor")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        with zipfile.ZipFile(path) as archive:
            entries = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
    with pytest.raises(DumpError, match=path.name):
        compare(ours, tmp_path)


@pytest.mark.parametrize(
    "record",
    [
        {"output": [{"data_name": "../../x.pt", "shape": [1]}]},
        {"output": [{"data_name": "x.pt", "shape": [-1]}]},
        {"output": [{"data_name": "x.pt", "shape": ["1"]}]},
        {"output": {"data_name": "x.pt", "shape": [1]}},
        {"output": []},
        [],
    ],
    ids=str,
)
def test_records_without_a_tensor_of_their_own_folder_are_left_out(tmp_path: Path, record: Any) -> None:
    (tmp_path / "dump.json").write_text(json.dumps({"data": {"Module.a.B.forward.0": record}}))
    with pytest.raises(DumpError, match="has no tensor that a module returned"):
        ModuleDump(tmp_path, 0)


def test_of_several_runs_in_a_folder_the_step_is_taken(tmp_path: Path) -> None:
    data = {f"Module.a.B.forward.{n}": {"output": [{"data_name": f"{n}.pt", "shape": [1]}]} for n in range(3)}
    (tmp_path / "dump.json").write_text(json.dumps({"data": data}))
    (tmp_path / "dump_tensor_data").mkdir()
    for number in range(3):
        torch.save(torch.tensor([number]), tmp_path / "dump_tensor_data" / f"{number}.pt")
    assert [ModuleDump(tmp_path, step).get_tensor("a").item() for step in (0, 2, 9)] == [0, 2, 0]
