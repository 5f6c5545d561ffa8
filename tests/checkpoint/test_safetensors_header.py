# SPDX-License-Identifier: Apache-2.0
"""A safetensors file is refused, with its cause, before anything in it is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoint.checkpoints import entry, safetensors_bytes, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from atb_core.checkpoint.files import StoredTensor
from atb_core.checkpoint.safetensors import open_safetensors
from atb_core.errors import WeightsError

GOOD = {"a": entry("F32", [2], 0, 8), "b": entry("BF16", [3], 8, 14)}
GOOD_DATA = bytes(14)


def read(path: Path) -> dict[str, StoredTensor[str]]:
    with open_safetensors(path) as loader:
        return dict(loader.tensors)


def test_the_data_are_located_from_the_start_of_the_file(tmp_path: Path) -> None:
    content = safetensors_bytes(GOOD, GOOD_DATA)
    header = read(write(tmp_path / "x.safetensors", content))
    start = len(content) - len(GOOD_DATA)
    assert {name: (e.offset, e.nbytes) for name, e in header.items()} == {"a": (start, 8), "b": (start + 8, 6)}


def test_the_header_may_end_in_spaces_and_carry_text(tmp_path: Path) -> None:
    raw = json.dumps({"__metadata__": {"format": "pt"}, **GOOD}).encode() + b"   "
    header = read(write(tmp_path / "x.safetensors", safetensors_bytes(raw, GOOD_DATA)))
    assert list(header) == ["a", "b"]


def test_an_empty_tensor_and_a_scalar_are_tensors(tmp_path: Path) -> None:
    table = {"none": entry("F32", [3, 0], 0, 0), "one": entry("F32", [], 0, 4)}
    header = read(write(tmp_path / "x.safetensors", safetensors_bytes(table, bytes(4))))
    assert header["none"].shape == (3, 0)
    assert header["one"].shape == ()


def test_a_name_may_look_like_structure(tmp_path: Path) -> None:
    name = '[[[[{{{{"\\\n'
    header = read(write(tmp_path / "x.safetensors", safetensors_bytes({name: entry("I8", [1], 0, 1)}, b"x")))
    assert list(header) == [name]


def deep(levels: int) -> bytes:
    return b'{"a":' + b"[" * levels + b"]" * levels + b"}"


def one(**changes: Any) -> dict[str, Any]:
    return {"a": {**entry("F32", [2], 0, 8), **changes}}


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "too short"),
    "seven bytes": (b"\0" * 7, "too short"),
    "header beyond the limit": (safetensors_bytes(b"{}", length=100_000_001), "limit"),
    "header length that wraps": (safetensors_bytes(b"{}", length=2**64 - 1), "limit"),
    "header beyond the file": (safetensors_bytes(GOOD, length=5000), "too short"),
    "not JSON": (safetensors_bytes(b"{nope}"), "not JSON"),
    "leading space": (safetensors_bytes(b" {}"), "start with"),
    "a list": (safetensors_bytes(b"[]"), "start with"),
    "not UTF-8": (safetensors_bytes(b'{"\xff":1}'), "utf-8"),
    "trailing garbage": (safetensors_bytes(b"{}x"), "not JSON"),
    "nested deep": (safetensors_bytes(deep(100_000)), "deeper than 64"),
    "nested a little": (safetensors_bytes(deep(4)), "exactly"),
    "NaN": (safetensors_bytes(b'{"a": NaN}'), "NaN"),
    "tensor twice": (safetensors_bytes(b'{"a": 1, "a": 2}'), "twice"),
    "attribute twice": (safetensors_bytes(b'{"a": {"dtype": "F32", "dtype": "F16"}}'), "twice"),
    "metadata not text": (safetensors_bytes({"__metadata__": {"a": 1}}), "table of strings"),
    "metadata a list": (safetensors_bytes({"__metadata__": []}), "table of strings"),
    "entry not a table": (safetensors_bytes({"a": 1}), "exactly"),
    "attribute missing": (safetensors_bytes({"a": {"dtype": "F32", "shape": []}}), "exactly"),
    "attribute unknown": (safetensors_bytes(one(more=1), bytes(8)), "exactly"),
    "dtype unknown": (safetensors_bytes(one(dtype="F31"), bytes(8)), "element type 'F31'"),
    "dtype a list": (safetensors_bytes(one(dtype=["F32"]), bytes(8)), "element type"),
    "size negative": (safetensors_bytes(one(shape=[-2]), bytes(8)), "shape"),
    "size fractional": (safetensors_bytes(one(shape=[2.0]), bytes(8)), "shape"),
    "size true": (safetensors_bytes(one(shape=[True, 2]), bytes(8)), "shape"),
    "size enormous": (safetensors_bytes(one(shape=[2**64]), bytes(8)), "shape"),
    "rank absurd": (safetensors_bytes(one(shape=[1] * 33), bytes(8)), "shape"),
    "product wraps to zero": (safetensors_bytes(one(shape=[2**32, 2**32]), bytes(8)), "absurd"),
    "product wraps to two": (safetensors_bytes(one(shape=[2**63 + 1, 2]), bytes(8)), "absurd"),
    "zero hides an absurd size": (safetensors_bytes(one(shape=[0, 2**62, 4], data_offsets=[0, 0])), "absurd"),
    "zero-size tensor with data": (safetensors_bytes(one(shape=[0]), bytes(8)), "does not fit"),
    "zero-size tensor far outside": (
        safetensors_bytes({"a": entry("F32", [0], 2**40, 2**40)}),
        "leaves unused",
    ),
    "range too short": (safetensors_bytes(one(data_offsets=[0, 4]), bytes(4)), "does not fit"),
    "range backwards": (safetensors_bytes(one(data_offsets=[8, 0]), bytes(8)), "does not fit"),
    "range of three": (safetensors_bytes(one(data_offsets=[0, 8, 8]), bytes(8)), "two positions"),
    "hole at the start": (safetensors_bytes(one(data_offsets=[4, 12]), bytes(12)), "leaves unused"),
    "hole in the middle": (
        safetensors_bytes({"a": entry("F32", [2], 0, 8), "b": entry("I8", [1], 9, 10)}, bytes(10)),
        "leaves unused",
    ),
    "two tensors on one range": (
        safetensors_bytes({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}, bytes(8)),
        "overlaps",
    ),
    "something after the end": (safetensors_bytes(GOOD, GOOD_DATA + b"PK\x03\x04"), "follow the last"),
    "truncated data": (safetensors_bytes(GOOD, GOOD_DATA[:-1]), "truncated"),
    "half an element": (safetensors_bytes({"a": entry("F4", [1], 0, 1)}, bytes(1)), "does not fit"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_cause(case: str, tmp_path: Path) -> None:
    content, cause = HOSTILE[case]
    path = write(tmp_path / "x.safetensors", content)
    with pytest.raises(WeightsError, match=cause) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("length", range(len(safetensors_bytes(GOOD, GOOD_DATA))))
def test_a_file_cut_anywhere_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        read(write(tmp_path / "x.safetensors", safetensors_bytes(GOOD, GOOD_DATA)[:length]))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_changed_bytes_is_refused_or_right_for_the_safetensors_library_too(
    data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(safetensors_bytes(GOOD, GOOD_DATA))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path / "x.safetensors", bytes(content))
    try:
        header = read(path)
    except WeightsError:
        return
    with safe_open(path, "np") as file:
        assert set(file.keys()) == set(header)
    spans = sorted((e.offset, e.offset + e.nbytes) for e in header.values())
    assert all(0 <= begin <= end <= len(content) for begin, end in spans)
    assert sum(end - begin for begin, end in spans) == len(GOOD_DATA)
