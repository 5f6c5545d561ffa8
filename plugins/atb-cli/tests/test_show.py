# SPDX-License-Identifier: Apache-2.0
"""`atb show`: facts of a model that follow from its configuration and the headers of its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atb_core.models.base.config import LayerHeads

Run = Callable[..., Any]


def test_the_facts_of_a_model(atb: Run, tiny: Any, tiny_model: str) -> None:
    facts = json.loads(atb("show", tiny_model, "--json").out)
    parameters = sum(tensor.numel() for tensor in tiny.weights().values())
    assert facts["parameters"] == parameters
    assert facts["weight_bytes"] == facts["file_bytes"] == 4 * parameters
    # Keys and values of three layers, two heads of eight each, in float32.
    assert facts["kv_bytes_per_token"] == 2 * 3 * 2 * 8 * 4
    assert facts["kv_cache_dtype"] == "float32"
    assert (facts["package"], facts["package_version"]) == ("atb-tiny", "1.2.3")
    assert (facts["architecture"], facts["model_type"]) == ("TinyForCausalLM", "tiny")
    assert facts["stored_types"] == {"float32": 30}
    assert facts["checkpoint"] == "complete"


def test_a_cache_of_int8_has_a_byte_for_an_element_and_a_scale_for_a_head(atb: Run, tiny_model: str) -> None:
    facts = json.loads(atb("show", tiny_model, "--kv-cache-dtype", "int8", "--json").out)
    assert (facts["kv_cache_dtype"], facts["kv_bytes_per_token"]) == ("int8", 2 * 3 * 2 * (8 + 4))
    assert "int8, 144 B a token" in atb("show", tiny_model, "--kv-cache-dtype", "int8").out


def test_layers_with_other_heads_are_counted(
    atb: Run, tiny: Any, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny.TinyConfig, "heads_of", lambda config, layer: LayerHeads(2, 1, 16) if layer else None)
    out, facts = atb("show", tiny_model).out, json.loads(atb("show", tiny_model, "--json").out)
    assert "4 query heads, 2 key/value heads, 8 wide; other heads in 2 layers" in out
    assert (facts["layers_with_other_heads"], facts["kv_bytes_per_token"]) == (2, 2 * 4 * (2 * 8 + 2 * 16))


def test_the_text_names_the_same_facts(atb: Run, tiny_model: str) -> None:
    out = atb("show", tiny_model).out
    for fact in (
        "atb-tiny 1.2.3",
        "TinyForCausalLM",
        "3, hidden size 32",
        "4 query heads, 2 key/value heads, 8 wide",
        "256 tokens",
    ):
        assert fact in out


@pytest.mark.parametrize(
    ("architectures", "shown"),
    [
        ([], "tiny (model type tiny)"),
        ("Tiny", "tiny (model type tiny)"),
        ({"a": 1}, "tiny (model type tiny)"),
        (["\x1b[2JTiny\n"], "\\x1b[2JTiny\\n (model type tiny)"),
        ([["x" * 9000]], "xxxx (model type tiny)"),
    ],
)
def test_whatever_stands_for_the_architecture_is_shown_in_a_line(
    atb: Run, tiny: Any, tmp_path: Path, architectures: object, shown: str
) -> None:
    directory = tiny.write_checkpoint(tmp_path / "model", tiny.weights(), architectures=architectures)
    line = next(line for line in atb("show", str(directory)).out.splitlines() if line.startswith("architecture"))
    assert line.endswith(shown)
    assert len(line) < 300


def test_a_tensor_that_is_missing_is_named(atb: Run, tiny: Any, tmp_path: Path) -> None:
    tensors = tiny.weights()
    del tensors["model.layers.1.mlp.up_proj.weight"]
    result = atb("show", str(tiny.write_checkpoint(tmp_path / "model", tensors)))
    assert result.status == 0
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in result.out


@pytest.mark.parametrize("sizes", [{"num_hidden_layers": 10**9}, {"vocab_size": -1}, {"num_key_value_heads": 3}])
def test_an_absurd_configuration_is_refused_by_field(
    atb: Run, tiny: Any, tmp_path: Path, sizes: dict[str, int]
) -> None:
    result = atb("show", str(tiny.write_checkpoint(tmp_path / "model", tiny.weights(), **sizes)))
    assert result.status == 1
    assert f"{next(iter(sizes))} = {next(iter(sizes.values()))}" in result.err
    assert "Traceback" not in result.err


def test_an_unknown_model_type_says_what_is_installed(atb: Run, tiny: Any, tmp_path: Path) -> None:
    directory = tiny.write_checkpoint(tmp_path / "model", tiny.weights(), model_type="unheard")
    result = atb("show", str(directory))
    assert result.status == 1
    assert "'unheard'" in result.err
    assert "tiny (atb-tiny 1.2.3)" in result.err
    assert "atb-unheard" in result.err
