# SPDX-License-Identifier: Apache-2.0
"""`atb compare` reads what msProbe and msit save of ATB's operations, and finds the operation that is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from atb_cli.app import main
from atb_testing import open_model, tiny_checkpoint
from atb_testing.compare import Comparison, compare
from atb_testing.dump import DumpError, dump
from atb_testing.vendor.rounds import Round, find_round
from atb_testing.vendor.tensor_file import DTYPES, read_header, read_tensor

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}

#: Changes a tensor of the round before it is written, by its key in our dump.
Change = Callable[[str, torch.Tensor], torch.Tensor]


def header(tensor: torch.Tensor, data: str, form: int = 2) -> bytes:
    """The lines before the elements, as `BinFile::Write` writes them."""
    size = tensor.numel() * tensor.element_size()
    dims = ",".join(str(n) for n in tensor.shape)
    count, length = (0, 0) if data.startswith("data=") else (1, size)
    begin = f"$Version=1.0\n$Object.Count={count}\n$Object.Length={length}\n"
    return f"{begin}format={form}\ndtype={NUMBERS[tensor.dtype]}\ndims={dims}\n{data}\n$End=1\n".encode()


def saved(path: Path, tensor: torch.Tensor, form: int = 2) -> Path:
    """Writes a tensor as msProbe does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    path.write_bytes(header(tensor, f"$Object.data=0,{len(data)}", form) + data)
    return path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unfused dump of a run in float16."""
    checkpoint = tiny_checkpoint(tmp_path_factory.mktemp("model"), "qwen2", torch.float16)
    directory = tmp_path_factory.mktemp("dump")
    dump(open_model(checkpoint, "reference"), TOKENS, directory, leave_out=["All"])
    return directory


def round_of(ours: Path, directory: Path, change: Change = lambda _, tensor: tensor, named: bool = False) -> Path:
    """Writes the prefill of our dump as a card's round: ATB-Models' names, or those of this project's graphs."""
    values = json.loads((ours / "dump.json").read_text())["variants"]["prefill"]
    tensors = load_file(ours / "step-0000-prefill.safetensors")
    directory = directory / "atb_dump_data" / "data" / "0_39943" / "0"
    tops: list[str] = []
    nodes: dict[str, int] = {}
    outputs: dict[Path, int] = {}
    for value in values:
        layer = re.match(r"model\.layers\.\d+", value["module"])
        section = layer[0] if layer else "embed" if not tops or tops == ["embed"] else "head"
        if section not in tops:
            tops.append(section)
        name = {"embed": "WordEmbedding", "head": "LmHead"}.get(section, "Prefill_layer")
        top = f"{tops.index(section)}_{section.replace('.', '_') if named else name}"
        number = int(value["key"].rpartition(":")[2])
        if number == 0 or value["op"] != "Split":
            nodes[top] = nodes.get(top, -1) + 1
        node = directory / top / f"{nodes[top]}_{value['op']}Operation"
        output = outputs[node] = outputs.get(node, -1) + 1
        tensor = change(value["key"], tensors[value["key"]])
        saved(node / "after" / f"outtensor{output}.bin", tensor)
        if layer and layer[0] in value["leaves"]:
            saved(directory / top / "after" / "outtensor0.bin", tensor)
    saved(directory / "0_WordEmbedding" / "before" / "intensor1.bin", torch.tensor(TOKENS[:-1]))
    return directory


def broken(key: str) -> Change:
    return lambda name, tensor: tensor + 0.5 if name == key else tensor


def both(ours: Path, theirs: Path, **options: Any) -> Comparison:
    result = compare(ours, theirs, **options)
    assert result.by_place
    assert result.compared > 30
    return result


@pytest.mark.parametrize("named", [False, True], ids=["the vendor's names", "names of this project's graphs"])
def test_a_run_on_a_card_is_compared_with_one_here(ours: Path, tmp_path: Path, named: bool) -> None:
    result = both(ours, round_of(ours, tmp_path, named=named))
    assert result.first is None
    assert (result.equal, result.alone) == (result.compared, 0)


@pytest.mark.parametrize(
    "key",
    [
        "model.layers.1.mlp:Activation:0",
        "model.layers.0.self_attn:Rope:1",
        "model.layers.1:Elewise:1",
        "model.layers.0.input_layernorm:RmsNorm:0",
        "lm_head:Linear:0",
    ],
)
def test_a_wrong_operation_of_a_card_is_found_at_its_node(ours: Path, tmp_path: Path, key: str) -> None:
    found = both(ours, round_of(ours, tmp_path, broken(key))).first
    assert found is not None
    assert found.value["key"] == key


def test_layers_alone_are_compared_where_their_operations_were_not_saved(ours: Path, tmp_path: Path) -> None:
    theirs = round_of(ours, tmp_path, broken("model.layers.1:Elewise:1"))
    for folder in theirs.glob("*/*Operation"):
        shutil.rmtree(folder)
    result = compare(ours, theirs)
    assert result.first is not None
    assert (result.compared, result.first.value["key"]) == (3, "model.layers.1:Elewise:1")


def test_other_tokens_are_refused(ours: Path, tmp_path: Path) -> None:
    theirs = round_of(ours, tmp_path)
    saved(theirs / "0_WordEmbedding" / "before" / "intensor1.bin", torch.tensor(TOKENS[1:]))
    with pytest.raises(DumpError, match=r"began with \[1, 4, .* and the step with \[3, 1, "):
        compare(ours, theirs)


def test_layers_that_share_an_operation_are_refused_with_what_separates_them(ours: Path, tmp_path: Path) -> None:
    theirs = round_of(ours, tmp_path, named=True)
    (theirs / "2_model_layers_1").rename(theirs / "unlike")
    with pytest.raises(DumpError, match="has operations of 2 of 3 layers") as error:
        compare(ours, theirs)
    assert "ATB_OPERATION_EXECUTE_ASYNC=1" in str(error.value.hint)


def test_other_numbers_of_layers_are_refused(ours: Path, tmp_path: Path) -> None:
    theirs = round_of(ours, tmp_path)
    (theirs / "2_Prefill_layer").rename(theirs / "unlike")
    with pytest.raises(DumpError, match=r"has 2 operations 'Prefill_layer' for 3 layers"):
        compare(ours, theirs)


def test_two_rounds_are_compared_by_the_paths_of_their_operations(ours: Path, tmp_path: Path) -> None:
    right = round_of(ours, tmp_path / "a")
    wrong = round_of(ours, tmp_path / "b", broken("model.layers.1.mlp:Activation:0"))
    assert compare(right, right).first is None
    found = compare(right, wrong).first
    assert found is not None
    assert found.value["op"] == "ActivationOperation"
    assert found.value["module"] == "2_Prefill_layer"


def test_a_tensor_that_was_saved_before_is_read_at_its_place(tmp_path: Path) -> None:
    value = torch.randn(2, 3, dtype=torch.float16)
    saved(tmp_path / "0_WordEmbedding" / "after" / "outtensor0.bin", value)
    copy = tmp_path / "1_Prefill_layer" / "0_RmsNormOperation" / "after" / "outtensor0.bin"
    for data, there in (("data=0_outtensor0.bin", True), ("data=7_intensor0.bin", False), ("data=../x", False)):
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(header(value.reshape(6), data))
        found = Round(tmp_path)
        assert (found.header(copy) is not None) == there
    copy.write_bytes(header(value.reshape(6), "data=0_outtensor0.bin"))
    assert torch.equal(Round(tmp_path).tensor(copy), value.reshape(6))


def test_every_element_type_is_read_as_it_was_written(tmp_path: Path) -> None:
    for dtype in DTYPES.values():
        value = torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype)
        assert torch.equal(read_tensor(read_header(saved(tmp_path / "x.bin", value))), value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"$End=1\n", b"$Fin=1\n", "cut off, or no tensor of an ATB operation"),
        (b"dtype=1", b"dtype=13", "elements of ACL's type 13"),
        (b"dtype=1", b"dtype=x", "dtype, format or dims are missing"),
        (b"dims=2,3", b"dims=2,-3", "its dims are '2,-3'"),
        (b"dims=2,3", b"dims=" + b"9" * 5000, "dtype, format or dims|its dims are"),
        (b"dims=2,3", b"dims=4000000000,4000000000", "damaged: 12 bytes for"),
        (b"data=0,12", b"data=4,12", "cut off: it has 8 of 12 bytes"),
        (b"data=0,12", b"data=-4,12", "damaged: 12 bytes for"),
        (b"data=0,12", b"data=zero", r"\$Object.data is 'zero'"),
        (b"format=2", b"format", "no line name=value"),
    ],
)
def test_damaged_tensors_are_refused(tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    path = saved(tmp_path / "x.bin", torch.zeros(2, 3, dtype=torch.float16))
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(DumpError, match=message):
        read_header(path)


def test_a_tensor_that_is_cut_off_is_refused_at_every_length(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.bin", torch.zeros(2, 3, dtype=torch.float16))
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DumpError, match="cut off"):
            read_header(path)


def test_blocks_are_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path / "0_LinearOperation" / "after" / "outtensor0.bin", torch.zeros(1, 1, 16, 16), form=29)
    assert Round(tmp_path).header(path) is None
    with pytest.raises(DumpError, match="ACL's format 29"):
        read_tensor(read_header(path))


def test_a_round_is_found_below_and_has_to_be_chosen_of_several(ours: Path, tmp_path: Path) -> None:
    theirs = round_of(ours, tmp_path)
    assert find_round(tmp_path) == find_round(theirs.parent) == theirs
    saved(theirs.parent / "1" / "0_WordEmbedding" / "after" / "outtensor0.bin", torch.zeros(1))
    with pytest.raises(DumpError, match=r"has 2 rounds: atb_dump_data/data/0_39943/0, atb_dump_data"):
        find_round(tmp_path)


def test_statistics_alone_are_refused_with_the_task_that_saves_tensors(tmp_path: Path) -> None:
    (tmp_path / "0_WordEmbedding").mkdir()
    (tmp_path / "statistic.csv").touch()
    with pytest.raises(DumpError, match="has no tensor") as error:
        Round(tmp_path)
    assert '"task": "tensor"' in str(error.value.hint)


def test_the_command_says_how_values_were_matched(
    ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = round_of(ours, tmp_path)
    assert main(["compare", str(ours), str(tmp_path)]) == 0
    assert "matched by layer, operation, size and order" in capsys.readouterr().out
    assert main(["compare", str(theirs), str(ours)]) != 0
    assert "Give the dump of `atb dump` first" in capsys.readouterr().err
    assert main(["compare", str(ours), str(theirs), "--step", "7"]) != 0
    assert "has no step 7; its steps are 0 to 1" in capsys.readouterr().err
