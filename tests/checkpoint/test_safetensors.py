# SPDX-License-Identifier: Apache-2.0
"""Reading tensors and slices from safetensors, single and sharded."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint.checkpoints import entry, safetensors_bytes, write
from safetensors.torch import save_file

from atb_core.checkpoint import open_weights
from atb_core.checkpoint import safetensors as loader_module
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_core.graph.arrays import dtype_of, to_torch
from atb_core.graph.dtype import DataType

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.int64, torch.bool]


def tensors() -> dict[str, torch.Tensor]:
    made = {f"t.{str(d).removeprefix('torch.')}": torch.randint(-99, 99, (5, 7)).to(d) for d in DTYPES}
    return {**made, "cube": torch.randn(3, 4, 5), "vector": torch.randn(9), "scalar": torch.tensor(1.5)}


def sharded(directory: Path, **changes: Any) -> Path:
    """Two shards and their index; `changes` replace entries of the weight map."""
    save_file({"a": torch.ones(2)}, directory / "one.safetensors")
    save_file({"b": torch.zeros(3), "c": torch.ones(1)}, directory / "two.safetensors")
    weight_map = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors", **changes}
    index = {"weight_map": {name: shard for name, shard in weight_map.items() if shard is not None}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def test_every_tensor_is_what_the_safetensors_library_wrote(tmp_path: Path) -> None:
    expected = tensors()
    save_file(expected, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader:
        assert set(loader.names()) == set(expected)
        for name, tensor in expected.items():
            got = loader.get(name)
            assert loader.shape(name) == tuple(tensor.shape)
            assert loader.dtype(name).short == str(tensor.dtype).removeprefix("torch.")
            assert loader.nbytes(name) == tensor.nbytes
            assert dtype_of(got) is dtype_of(tensor)
            assert torch.equal(to_torch(got), tensor)


def test_every_slice_is_what_narrowing_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "_CHUNK_BYTES", 50)  # so that inner slices take several reads
    cube = torch.randn(3, 4, 5).to(torch.bfloat16)
    save_file({"cube": cube}, tmp_path / "model.safetensors")
    with open_weights(tmp_path / "model.safetensors") as loader:
        for dim, size in enumerate(cube.shape):
            for start in range(size + 1):
                for stop in range(start, size + 1):
                    got = loader.get_slice("cube", dim, start, stop)
                    assert got.flags.c_contiguous
                    assert torch.equal(to_torch(got), cube.narrow(dim, start, stop - start))


@pytest.mark.parametrize(("dim", "start", "stop"), [(3, 0, 1), (-1, 0, 1), (0, 0, 4), (0, 2, 1), (0, -1, 1)])
def test_a_slice_outside_the_tensor_is_an_error(dim: int, start: int, stop: int, tmp_path: Path) -> None:
    save_file({"cube": torch.zeros(3, 4, 5)}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader, pytest.raises(WeightsError, match="no slice"):
        loader.get_slice("cube", dim, start, stop)


def test_tensors_outlive_the_loader_and_reading_after_closing_is_an_error(tmp_path: Path) -> None:
    save_file({"a": torch.ones(4)}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader:
        tensor = loader.get("a")
    assert tensor.tolist() == [1] * 4
    with pytest.raises(WeightsError, match="closed"):
        loader.get("a")
    loader.close()


def test_the_error_for_an_unknown_name_offers_the_closest(tmp_path: Path) -> None:
    save_file({"model.norm.weight": torch.ones(4)}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader, pytest.raises(WeightsError, match=r"model\.norm\.weight"):
        loader.get("model.norms.weight")


def test_an_element_type_that_cannot_be_read_is_an_error_naming_it(tmp_path: Path) -> None:
    content = safetensors_bytes({"a": entry("F8_E4M3", [2], 0, 2)}, bytes(2))
    with open_weights(write(tmp_path / "x.safetensors", content)) as loader:
        assert loader.shape("a") == (2,)
        with pytest.raises(WeightsError, match=r"'a'.*F8_E4M3"):
            loader.get("a")


def test_a_file_cut_while_it_is_open_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100_000)}, path)
    with open_weights(path) as loader:
        os.truncate(path, 200_000)
        with pytest.raises(WeightsError, match="tensor 'a'"):
            loader.get("a")


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    with open_weights(sharded(tmp_path)) as loader:
        assert set(loader.names()) == {"a", "b", "c"}
        assert loader.get("b").tolist() == [0] * 3


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"d": "two.safetensors"}, "'d' in two.safetensors, but it is in none"),
        ({"c": "one.safetensors"}, "'c' in one.safetensors, but it is in two.safetensors"),
        ({"d": "three.safetensors"}, r"three\.safetensors.*missing"),
        ({"d": "../elsewhere.safetensors"}, "not a .safetensors file beside it"),
        ({"d": "/etc/x.safetensors"}, "not a .safetensors file beside it"),
        ({"d": "..\\x.safetensors"}, "not a .safetensors file beside it"),
        ({"d": "weights.bin"}, "not a .safetensors file beside it"),
        ({"d": "é" * 130 + ".safetensors"}, "not a .safetensors file beside it"),
        ({"d": 7}, "not a .safetensors file beside it"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(
    changes: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=cause):
        open_weights(sharded(tmp_path, **changes))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"weight_map": {}}', b'{"weight_map": {"a": "x", "a": "y"}}', b"\xff"]
)
def test_a_damaged_index_is_refused(raw: bytes, tmp_path: Path) -> None:
    write(sharded(tmp_path) / "model.safetensors.index.json", raw)
    with pytest.raises(
        WeightsError, match=r"model\.safetensors\.index\.json (cannot be read|is not a valid shard index)"
    ):
        open_weights(tmp_path)


def test_shards_may_be_links_into_a_store(tmp_path: Path) -> None:
    inside, outside = tmp_path / "model", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    sharded(inside)
    os.replace(inside / "one.safetensors", outside / "one.safetensors")
    (inside / "one.safetensors").symlink_to(outside / "one.safetensors")
    with open_weights(inside) as loader:
        assert loader.get("a").tolist() == [1] * 2
    (outside / "one.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names one\.safetensors, of 1 missing shards"):
        open_weights(inside)


def test_a_tensor_that_the_index_leaves_out_is_there_and_known_as_such(tmp_path: Path) -> None:
    with open_weights(sharded(tmp_path, c=None)) as loader:
        assert set(loader.names()) == {"a", "b", "c"}
        assert loader.unlisted() == {"c"}


def test_of_two_checkpoints_in_a_directory_one_is_read_and_the_other_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_file({"z": torch.ones(1)}, sharded(tmp_path) / "model.safetensors")
    with open_weights(tmp_path) as loader:
        assert list(loader.names()) == ["z"]
    assert "model.safetensors is read, the shards of model.safetensors.index.json are not" in caplog.text


def test_a_shard_stands_for_the_whole_checkpoint(tmp_path: Path) -> None:
    with open_weights(sharded(tmp_path) / "two.safetensors") as loader:
        assert set(loader.names()) == {"a", "b", "c"}
    save_file({"z": torch.ones(1)}, tmp_path / "other.safetensors")
    with open_weights(tmp_path / "other.safetensors") as loader:
        assert list(loader.names()) == ["z"]


def test_several_files_without_an_index_are_refused(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors\.index\.json"):
        open_weights(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_never_opened(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, b"\x80\x04cos\nsystem\n")
    with pytest.raises(WeightsError, match="pickle"):
        open_weights(tmp_path)
    with pytest.raises(WeightsError, match="pickle"):
        open_weights(tmp_path / name)


def test_what_is_not_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"contains no \.safetensors"):
        open_weights(tmp_path)
    with pytest.raises(ModelNotFoundError):
        open_weights(tmp_path / "nothing")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        open_weights(write(tmp_path / "notes.txt", b"x"))
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(WeightsError, match="regular file"):
        open_weights(tmp_path / "pipe.safetensors")


def test_a_git_lfs_pointer_is_called_what_it_is(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    with pytest.raises(WeightsError, match="Git LFS pointer") as caught:
        open_weights(write(tmp_path / "model.safetensors", pointer))
    assert caught.value.hint
    assert "git lfs pull" in caught.value.hint


def test_data_types_are_named_as_the_graph_names_them(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    with open_weights(tmp_path) as loader:
        assert loader.dtype("a") is DataType.BF16
