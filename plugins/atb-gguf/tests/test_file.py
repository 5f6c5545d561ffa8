# SPDX-License-Identifier: Apache-2.0
"""The parts of a split GGUF model are one model, whichever of them is opened."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from checkpoint.checkpoints import write
from gguf_bytes import TINY, byte_level_metadata, gguf_bytes, gguf_tensor_info, tiny_gguf

from atb_core.checkpoint import open_checkpoint, open_weights
from atb_core.errors import ModelNotFoundError, WeightsError
from atb_core.graph.arrays import to_torch

F32 = int(gguf.GGMLQuantizationType.F32)


def part(tensors: dict[str, np.ndarray], **metadata: Any) -> bytes:
    infos, data = [], b""
    for name, value in tensors.items():
        infos.append(gguf_tensor_info(name, value.shape, F32, len(data)))
        data += value.tobytes()
    return gguf_bytes({key.replace("__", "."): value for key, value in metadata.items()}, infos, data)


def split(directory: Path, **changes: Any) -> list[Path]:
    """The tiny model in three parts, the first of which has no tensors; `changes` go into the last one's metadata."""
    tensors = list(tiny_gguf()[1].items())
    first = {**TINY, **byte_level_metadata("gpt-2"), "split.tensors.count": len(tensors)}
    contents = [
        part({}, split__no=0, split__count=3, **first),
        part(dict(tensors[:5]), split__no=1, split__count=3),
        part(dict(tensors[5:]), **{"split__no": 2, "split__count": 3, **changes}),
    ]
    return [write(directory / f"Tiny-{n + 1:05}-of-00003.GGUF", content) for n, content in enumerate(contents)]


@pytest.mark.parametrize("number", range(3))
def test_any_part_opens_the_whole_model(number: int, tmp_path: Path) -> None:
    paths = split(tmp_path)
    whole = write(tmp_path / "whole.gguf", tiny_gguf()[0])
    checkpoint = open_checkpoint(paths[number])
    assert checkpoint.config() == open_checkpoint(whole).config()
    assert checkpoint.tokenizer_parts().backend.get_vocab_size() == 257
    assert checkpoint.stored_types()["F32"] == 11
    with checkpoint.weights() as loader, open_weights(whole) as expected:
        assert sorted(loader.names()) == sorted(expected.names())
        for name in loader.names():
            assert torch.equal(to_torch(loader.get(name)), to_torch(expected.get(name)))


def test_a_directory_of_parts_is_one_model(tmp_path: Path) -> None:
    first, *_ = split(tmp_path)
    assert open_checkpoint(tmp_path).path == first
    write(tmp_path / "other.gguf", tiny_gguf()[0])
    with pytest.raises(ModelNotFoundError, match=r"2 models: Tiny-00001-of-00003\.GGUF, other\.gguf"):
        open_checkpoint(tmp_path)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, second, _ = split(tmp_path)
    second.unlink()
    with pytest.raises(WeightsError, match=r"Tiny-00002-of-00003\.GGUF is missing, one of 3 parts"):
        open_checkpoint(first).config()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"split__no": 1}, "number 1 of 3 by its metadata, but number 2 of 3 by its name"),
        ({"split__count": 4}, "number 2 of 4 by its metadata"),
        ({"split__count": "three"}, "number 2 of three by its metadata"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes: dict[str, Any], cause: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=cause):
        open_checkpoint(split(tmp_path, **changes)[0]).config()


def test_a_tensor_in_two_parts_or_in_none_is_refused(tmp_path: Path) -> None:
    first, _, third = split(tmp_path)
    tensors = tiny_gguf()[1]
    write(third, part({"output_norm.weight": tensors["output_norm.weight"]}, split__no=2, split__count=3))
    with pytest.raises(WeightsError, match=r"tensor 'output_norm\.weight' is in a part before it"):
        open_checkpoint(first).config()
    write(third, part({}, split__no=2, split__count=3))
    with pytest.raises(WeightsError, match="its parts have 5 tensors, not as many as it says"):
        open_checkpoint(first).config()


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    first, *_ = split(tmp_path)
    shutil.copy(first, tmp_path / "alone.gguf")
    with pytest.raises(WeightsError, match="number 0 of 3 by its metadata, but number 0 of 1") as caught:
        open_checkpoint(tmp_path / "alone.gguf").config()
    assert "NAME-00001-of-00003.gguf" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["MODEL.GGUF", "sha256-5f1d0", "model.bin"])
def test_a_file_is_known_by_its_first_bytes(name: str, tmp_path: Path) -> None:
    assert open_checkpoint(write(tmp_path / name, tiny_gguf()[0])).config()["model_type"] == "tiny"
