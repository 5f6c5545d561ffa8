# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/cpp-models.md say what the decoder takes: every field and input, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from atb_core import ModelTorch
from atb_core.errors import EngineError
from atb_core.graph.dtype import DataType
from atb_core.models.runtime.inputs import triangular_mask

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "cpp-models.md"
SOURCE = ROOT / "csrc" / "models" / "decoder_parameters.cpp"
SIZES = {"tokens": 3, "positions": 9, "head_dim": 16, "max_blocks": 2, "batch": 3, "rows": 3}
REQUIRED = {
    "normEps": 1e-6,
    "numHiddenLayers": 1,
    "numAttentionHeadsPerRank": 4,
    "numKeyValueHeadsPerRank": 2,
    "hiddenSizePerAttentionHead": 16,
}


def table(title: str, first: str) -> list[list[str]]:
    """The cells of the table under a heading whose first column is called `first`."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = iter(section.splitlines())
    assert any(line.startswith(f"| {first} |") for line in lines)
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


FIELDS = table("The decoder's parameters", "field")
NEUTRAL = [(json.loads(value.strip("`")), name) for value, cell in table("The decoder's parameters", "value")
           for name in names(cell)]  # fmt: skip
IGNORED = [(kind, name) for kind, cell in table("The decoder's parameters", "type") for name in names(cell)]
INPUTS = table("The decoder's inputs", "input")
DOCUMENTED = [*(name for row in FIELDS for name in names(row[0])), *(name for _, name in (*NEUTRAL, *IGNORED))]


def said(**fields: Any) -> str:
    """Returns the message of the decoder for these fields, empty if it takes them."""
    try:
        ModelTorch("core_DecoderModel").set_param({**REQUIRED, **fields})
    except EngineError as error:
        return str(error)
    return ""


def test_every_documented_field_is_one_of_the_decoders_and_stands_there_once() -> None:
    assert len(DOCUMENTED) == len(set(DOCUMENTED))
    assert [name for name in DOCUMENTED if "unknown parameters" in said(**{name: {}})] == []


@pytest.mark.skipif(not SOURCE.is_file(), reason="the C++ sources are not here")
def test_every_field_of_the_decoder_is_documented() -> None:
    words = set(re.findall(r'"([A-Za-z]\w*)"', SOURCE.read_text(encoding="utf-8")))
    fields = {word for word in words if "unknown parameters" not in said(**{word: {}})}
    assert len(fields) > 50
    assert fields - set(DOCUMENTED) == set()


def test_what_is_required_is_documented_as_required() -> None:
    required = {name for row in FIELDS if "required" in row[2] for name in names(row[0])}
    assert required == {*REQUIRED, "rmsNormEps"}
    for name in REQUIRED:
        rest = {other: value for other, value in REQUIRED.items() if other != name}
        with pytest.raises(EngineError, match=f"parameter '{name}' is missing"):
            ModelTorch("core_DecoderModel").set_param(rest)


def test_each_documented_default_is_what_is_taken_when_the_field_is_not_there() -> None:
    defaults = {names(row[0])[0]: row[2].strip("`") for row in FIELDS if row[2].startswith("`")}
    assert set(defaults) == {
        "isPrefill",
        "torchDtype",
        "isBF16",
        "float32Logits",
        "int8KvCache",
        "packedKvCache",
        "useQKNorm",
        "mapping",
    }
    plain, given = ModelTorch("core_DecoderModel"), ModelTorch("core_DecoderModel")
    plain.set_param(REQUIRED)
    given.set_param({**REQUIRED, **{name: json.loads(value) for name, value in defaults.items()}})
    assert (given.weight_names, given.nodes()) == (plain.weight_names, plain.nodes())


@pytest.mark.parametrize(("value", "name"), NEUTRAL, ids=[name for _, name in NEUTRAL])
def test_a_field_that_asks_for_nothing_is_taken_and_refused_by_name_at_another_value(value: Any, name: str) -> None:
    assert said(**{name: value}) == ""
    other = (not value) if isinstance(value, bool) else "w8a8" if value == "" else value + 1
    assert f"'{name}'" in said(**{name: other})


@pytest.mark.parametrize(("kind", "name"), IGNORED, ids=[name for _, name in IGNORED])
def test_of_a_field_without_effect_the_type_is_checked(kind: str, name: str) -> None:
    values: dict[str, Any] = {"boolean": True, "integer": 1, "string": "text"}
    assert said(**{name: values.pop(kind)}) == ""
    for wrong in values.values():
        assert f"'{name}' is " in said(**{name: wrong})


def decoder(is_prefill: bool) -> ModelTorch:
    """One layer in float32, with weights and a cache."""
    model = ModelTorch("core_DecoderModel")
    model.set_param({**REQUIRED, "isPrefill": is_prefill, "torchDtype": "float32"})
    hidden, inner, vocab = 32, 24, 11
    shapes = [(vocab, hidden), (hidden,), (128, hidden), (hidden, 64), (hidden,), (2 * inner, hidden), (hidden, inner),
              (hidden,), (vocab, hidden)]  # fmt: skip
    model.set_weight([torch.rand(shape) for shape in shapes])
    model.set_kv_cache([torch.zeros(8, 16, 2, 16)], [torch.zeros(8, 16, 2, 16)])
    return model


def documented_inputs() -> list[torch.Tensor]:
    """Tensors of the shapes and types that the table gives, with values that every step can take."""
    made = []
    for name, shape, kind, _, _ in INPUTS:
        sizes = [SIZES.get(size) or int(size) for size in re.findall(r"\w+", shape)]
        made.append(torch.ones(sizes, dtype=torch.float32 if kind == "T" else getattr(torch, kind)))
        if names(name) == ["attention_mask"]:
            assert made[-1].shape == triangular_mask(DataType.FLOAT).shape
            made[-1] = triangular_mask(DataType.FLOAT)
    return made


@pytest.mark.parametrize("is_prefill", [True, False], ids=["prefill", "decode"])
def test_the_inputs_are_those_of_the_table_and_each_is_missed_exactly_when_it_says_so(is_prefill: bool) -> None:
    model, inputs = decoder(is_prefill), documented_inputs()
    assert model.input_names == [names(row[0])[0] for row in INPUTS]
    assert model.execute(inputs)[0].shape == (3, 11)
    for place, (name, _, _, needed, _) in enumerate(INPUTS):
        without = [None if place == i else value for i, value in enumerate(inputs)]
        if needed in ("always", "in prefill" if is_prefill else "in decode"):
            with pytest.raises(EngineError, match=f"'{names(name)[0]}', is missing"):
                model.execute(without)
        else:
            model.execute(without)
