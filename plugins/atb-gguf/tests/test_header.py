# SPDX-License-Identifier: Apache-2.0
"""A GGUF file is read as the `gguf` package reads it, and refused with its cause where it lies."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import pytest
from checkpoint.checkpoints import write
from gguf_bytes import byte_level_metadata, gguf_bytes, gguf_string, gguf_tensor_info, gguf_value, tiny_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atb_core.checkpoint import FormatRules, open_weights
from atb_core.errors import TokenizerError, WeightsError
from atb_gguf.config import read_gguf_config
from atb_gguf.file import read_gguf_header
from atb_gguf.tokenizer import read_gguf_tokenizer

F32 = int(gguf.GGMLQuantizationType.F32)
Q4_0 = int(gguf.GGMLQuantizationType.Q4_0)
COMPLETE = tiny_gguf(metadata=byte_level_metadata("gpt-2", merges=["a b"]))[0]


def test_a_file_reads_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "tiny")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -5)
    writer.add_uint16("u16", 60000)
    writer.add_int16("i16", -300)
    writer.add_uint64("u64", 2**40)
    writer.add_int64("i64", -(2**40))
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "ünïcödé 😀")
    writer.add_array("texts", ["", "a", "é"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("flags", [True, False])
    writer.add_custom_alignment(64)
    values = {"a.weight": (3, 5), "b.bias": (7,), "c.weight": (2, 3, 4)}
    for name, shape in values.items():
        import numpy as np

        writer.add_tensor(name, np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header, reader = read_gguf_header(path), gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert header.metadata == fields
    expected = {
        t.name: (t.tensor_type, tuple(t.shape.tolist()[::-1]), t.data_offset, t.n_bytes) for t in reader.tensors
    }
    assert {name: (t.type, t.shape, t.offset, t.nbytes) for name, t in header.tensors.items()} == expected


def test_the_vocabulary_can_be_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", COMPLETE)
    full = read_gguf_header(path)
    short = read_gguf_header(path, texts=False)
    skipped = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}
    assert short.metadata == {key: value for key, value in full.metadata.items() if key not in skipped}
    assert short.tensors == full.tensors


def with_tensor(info: bytes, data: bytes = bytes(256), **metadata: object) -> bytes:
    return gguf_bytes(metadata, [info], data)


def raw_array(kind: int, length: int, content: bytes = b"") -> bytes:
    return struct.pack("<IIQ", 9, kind, length) + content


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends inside the magic"),
    "another format": (b"PK\x03\x04" + bytes(60), "starts with"),
    "version 1": (gguf_bytes({}, version=1), "version 1"),
    "version of the future": (gguf_bytes({}, version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count absurd": (gguf_bytes({}, counts=(2**63, 0)), "tensor count"),
    "metadata count absurd": (gguf_bytes({}, counts=(0, 2**64 - 1)), "metadata count"),
    "metadata count too high": (gguf_bytes({"a": 1}, counts=(0, 3)), "ends inside|unknown type|UTF-8|twice"),
    "key length absurd": (gguf_bytes({}, b"", counts=(0, 1))[:24] + struct.pack("<Q", 2**63), "metadata key 0"),
    "key not UTF-8": (gguf_bytes({}, counts=(0, 1))[:24] + gguf_string(b"\xff\xfe") + gguf_value(1), "not UTF-8"),
    "key twice": (gguf_bytes([("a", 1), ("a", 2)]), "'a' appears twice"),
    "value type unknown": (gguf_bytes({"a": struct.pack("<I", 13)}), "unknown type 13"),
    "text length absurd": (gguf_bytes({"a": struct.pack("<IQ", 8, 2**62)}), "'a'"),
    "text beyond the file": (gguf_bytes({"a": struct.pack("<IQ", 8, 10_000)}), "ends inside metadata 'a'"),
    "text not UTF-8": (gguf_bytes({"a": struct.pack("<I", 8) + gguf_string(b"\xc3")}), "not UTF-8"),
    "array length absurd": (gguf_bytes({"a": raw_array(4, 2**61)}), "2305843009213693952 items"),
    "array beyond the file": (gguf_bytes({"a": raw_array(4, 3_000_000)}), "ends inside metadata 'a'"),
    "texts beyond the file": (gguf_bytes({"a": raw_array(8, 3_000_000)}), "ends inside metadata 'a'"),
    "text in array absurd": (gguf_bytes({"a": raw_array(8, 1, struct.pack("<Q", 2**63))}), "'a'"),
    "text in array not UTF-8": (gguf_bytes({"a": raw_array(8, 1, gguf_string(b"\xff"))}), "item 0 .*not UTF-8"),
    "arrays of arrays": (gguf_bytes({"a": raw_array(9, 1, raw_array(9, 1))}), "array of arrays"),
    "alignment zero": (gguf_bytes({"general.alignment": 0}), "power of two"),
    "alignment odd": (gguf_bytes({"general.alignment": 24}), "power of two"),
    "alignment huge": (gguf_bytes({"general.alignment": 2**31}), "power of two"),
    "alignment a text": (gguf_bytes({"general.alignment": "32"}), "power of two"),
    "tensor twice": (
        gguf_bytes({}, [gguf_tensor_info("t", (2,), F32, 0), gguf_tensor_info("t", (2,), F32, 32)], bytes(64)),
        "'t' appears twice",
    ),
    "no dimensions": (with_tensor(gguf_tensor_info("t", (), F32, 0)), "0 dimensions"),
    "dimensions absurd": (with_tensor(gguf_string("t") + struct.pack("<I", 2**31)), "dimensions"),
    "empty tensor": (with_tensor(gguf_tensor_info("t", (0, 8), F32, 0)), "empty shape"),
    "product wraps": (with_tensor(gguf_tensor_info("t", (2**32, 2**32), F32, 0)), "truncated"),
    "type unknown": (with_tensor(gguf_tensor_info("t", (8,), 999, 0)), "unknown GGUF type 999"),
    "half a block": (with_tensor(gguf_tensor_info("t", (4, 33), Q4_0, 0)), "not a multiple of Q4_0"),
    "offset absurd": (with_tensor(gguf_tensor_info("t", (8,), F32, 2**63)), "truncated"),
    "offset wraps": (with_tensor(gguf_tensor_info("t", (8,), F32, 2**64 - 32)), "truncated"),
    "offset not aligned": (with_tensor(gguf_tensor_info("t", (8,), F32, 8)), "not a multiple of the alignment"),
    "tensors overlap": (
        gguf_bytes({}, [gguf_tensor_info("a", (16,), F32, 0), gguf_tensor_info("b", (8,), F32, 32)], bytes(96)),
        "'a' and 'b' overlap",
    ),
    "data cut": (with_tensor(gguf_tensor_info("t", (8,), F32, 0), bytes(31)), "truncated"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_its_cause(case: str, tmp_path: Path) -> None:
    content, cause = HOSTILE[case]
    path = write(tmp_path / "x.gguf", content)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=cause) as caught:
        read_gguf_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert peak < 4 << 20, "a short file must not cost much memory"


def everything(path: Path) -> None:
    """Does with a file what a runner does."""
    read_gguf_config(path)
    with open_weights(path, {"GGUF": FormatRules(permuted_qk=True)}) as loader:
        for name in loader.names():
            loader.get(name)
    read_gguf_tokenizer(path)


def test_the_file_that_the_fuzzers_start_from_is_right(tmp_path: Path) -> None:
    everything(write(tmp_path / "x.gguf", COMPLETE))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for length in range(0, len(COMPLETE), 97):
        with pytest.raises(WeightsError):
            everything(write(path, COMPLETE[:length]))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_changed_bytes_is_read_or_refused_but_never_crashes(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(COMPLETE)
    header_end = len(COMPLETE) - sum(
        t.nbytes for t in read_gguf_header(write(tmp_path / "y.gguf", COMPLETE)).tensors.values()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, header_end))
        width = data.draw(st.sampled_from([1, 4, 8]))
        value = data.draw(st.sampled_from([0, 1, 2**31, 2**63, 2 ** (8 * width) - 1]) | st.integers(0, 255))
        content[position : position + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
    message = ""
    try:
        everything(write(tmp_path / "x.gguf", bytes(content)))
    except (WeightsError, TokenizerError) as error:
        message = str(error)
    assert "\n" not in message
