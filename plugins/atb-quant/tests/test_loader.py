# SPDX-License-Identifier: Apache-2.0
"""Each format's matrices are what its description says, and blocks hold the same numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quant_files as files
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.torch import save_file

from atb_core.checkpoint import open_checkpoint
from atb_core.checkpoint.base import WeightLoader
from atb_core.errors import WeightsError
from atb_core.graph import DataType

NAME = "model.layers.0.mlp.up_proj"
BLOCKS = ("Q4_0", "Q5_0", "Q8_0")


def gptq_config(**changes: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True, **changes}


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [16, 32]}
PACKED = files.compressed_config(4, "int", "group", "pack-quantized", group_size=32, symmetric=True)
UNEVEN = files.compressed_config(4, "int", "group", "pack-quantized", group_size=32, symmetric=False)
INT8 = files.compressed_config(8, "int", "channel", "int-quantized", symmetric=True)
FLOAT8 = files.compressed_config(8, "float", "channel", "float-quantized", symmetric=True)
# Packer, configuration, and the blocks that hold the same numbers.
FORMATS: dict[str, tuple[files.Packer, dict[str, Any], str | None]] = {
    "gptq": (files.gptq(), gptq_config(), "Q4_0"),
    "gptq, second version": (files.gptq(less=0), gptq_config(checkpoint_format="gptq_v2"), "Q4_0"),
    "gptq, asymmetric": (files.gptq(symmetric=False), gptq_config(sym=False), "Q5_0"),
    "gptq, 8 bits": (files.gptq(8), gptq_config(bits=8), "Q8_0"),
    "gptq, 2 bits": (files.gptq(2), gptq_config(bits=2), "Q4_0"),
    "gptq, one group": (files.gptq(size=-1), gptq_config(group_size=-1), "Q4_0"),
    "gptq, small groups": (files.gptq(size=16), gptq_config(group_size=16), None),
    "gptq, reordered": (files.gptq(reordered=True), gptq_config(desc_act=True), None),
    "awq": (files.awq(), AWQ, "Q5_0"),
    "pack-quantized": (files.pack_quantized(), PACKED, "Q4_0"),
    "pack-quantized, asymmetric": (files.pack_quantized(symmetric=False), UNEVEN, "Q5_0"),
    "int-quantized": (files.int_quantized(), INT8, "Q8_0"),
    "int-quantized, static": (files.int_quantized(static=True), INT8, "Q8_0"),
    "float-quantized": (files.float_quantized, FLOAT8, None),
    "fp8": (files.fp8_blocks, FP8, None),
}


def matrix(rows: int = 48, columns: int = 96) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.3, (rows, columns)).astype(np.float32)


def write(directory: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> Path:
    directory.mkdir(exist_ok=True)
    stored = {f"{NAME}.{suffix}": files.as_tensor(array) for suffix, array in tensors.items()}
    save_file(stored, directory / "model.safetensors")
    (directory / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    files.change_config(directory, quantization_config=dict(config))
    return directory


def opened(directory: Path) -> WeightLoader:
    return open_checkpoint(directory).weights(DataType.FLOAT)


@pytest.mark.parametrize("case", FORMATS)
def test_a_matrix_has_the_values_that_were_stored(case: str, tmp_path: Path) -> None:
    pack, config, kind = FORMATS[case]
    tensors, values = pack(matrix())
    with opened(write(tmp_path / "model", tensors, config)) as loader:
        assert loader.quantization == config["quant_method"]
        assert list(loader.names()) == [f"{NAME}.weight"]
        assert loader.shape(f"{NAME}.weight") == values.shape
        assert np.array_equal(loader.get(f"{NAME}.weight"), values)
        for dim, start, stop in ((0, 5, 21), (1, 7, 40)):
            assert np.array_equal(
                loader.get_slice(f"{NAME}.weight", dim, start, stop), values.take(range(start, stop), dim)
            )
        rows = loader.blocks(f"{NAME}.weight", BLOCKS)
        assert (rows and rows.format) == kind
        if rows is not None:
            assert np.array_equal(dequantize(rows.blocks, GGMLQuantizationType[rows.format]), values)
        assert loader.blocks(f"{NAME}.weight", ()) is None


def test_scales_that_no_block_can_have_expand_a_matrix_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, values = files.int_quantized(half=False)(matrix())
    with caplog.at_level(logging.WARNING), opened(write(tmp_path / "model", tensors, INT8)) as loader:
        loader.keeps_integers = True
        assert loader.blocks(f"{NAME}.weight", BLOCKS) is None
        assert np.array_equal(loader.get(f"{NAME}.weight"), values)
    assert "1 of 1 matrices of compressed-tensors are expanded to float32" in caplog.text


@pytest.mark.parametrize(
    ("index", "changes"), [(-1, {"actorder": "weight"}), (0, {"group_size": 10**30})], ids=["not set", "one group"]
)
def test_an_order_of_inputs_that_changes_nothing_is_none(index: int, changes: dict[str, Any], tmp_path: Path) -> None:
    tensors, values = files.pack_quantized(size=-1 if "group_size" in changes else 32)(matrix())
    tensors["weight_g_idx"] = np.full(96, index, np.int32)
    with opened(write(tmp_path / "model", tensors, weights_of(PACKED, **changes))) as loader:
        assert np.array_equal(loader.get(f"{NAME}.weight"), values)


def test_a_group_with_a_scale_of_zero_holds_zeros(tmp_path: Path) -> None:
    tensors, values = files.gptq()(matrix())
    tensors["scales"][1] = 0
    values[:, 32:64] = 0
    with opened(write(tmp_path / "model", tensors, gptq_config())) as loader:
        assert np.array_equal(loader.get(f"{NAME}.weight"), values)


SETTINGS = {
    "an unknown scheme": ({"quant_method": "hqq"}, r"offers the quantisation scheme 'hqq' .* Known: awq \("),
    "no scheme": ({"bits": 4}, "names no quant_method"),
    "three bits": (gptq_config(bits=3), "have 3 bits; supported are 2, 4 and 8"),
    "a size of a group": (gptq_config(group_size=0), "group_size is 0"),
    "a boolean": (gptq_config(bits=True), "bits is 'True'"),
    "a huge number": (gptq_config(group_size=10**30), "group_size is '1000"),
    "another layout of gptq": (gptq_config(checkpoint_format="marlin"), "checkpoint_format is 'marlin'"),
    "settings of single modules": (gptq_config(dynamic={"-:lm_head": {}}), "setting 'dynamic' is unknown"),
    "another layout of awq": ({**AWQ, "version": "gemv"}, "version is 'gemv'; supported is 'gemm'"),
    "awq without zeros": ({**AWQ, "zero_point": False}, "zero_point is 'False'"),
    "another float": ({**FP8, "fmt": "e5m2"}, "fmt is 'e5m2'"),
    "blocks of nothing": ({**FP8, "weight_block_size": [0, 128]}, "weight_block_size"),
    "a quantised cache": ({**PACKED, "kv_cache_scheme": {"num_bits": 8}}, "setting 'kv_cache_scheme' is unknown"),
    "rotations": ({**PACKED, "transform_config": {"config_groups": {}}}, "transform_config is not empty"),
    "sparse weights": ({**PACKED, "sparsity_config": {"format": "sparse-bitmask"}}, "sparsity_config is not empty"),
    "no groups": ({**PACKED, "config_groups": {}}, "config_groups"),
    "a format": ({**PACKED, "format": "nvfp4-pack-quantized"}, "format is 'nvfp4-pack-quantized'"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_are_not_supported_are_refused_by_name(case: str, tmp_path: Path) -> None:
    config, message = SETTINGS[case]
    pack = {"gptq": files.gptq(), "awq": files.awq(), "fp8": files.fp8_blocks}.get(
        str(config.get("quant_method")), files.pack_quantized()
    )
    directory = write(tmp_path / "model", pack(matrix())[0], config)
    with pytest.raises(Exception, match=message) as caught:
        opened(directory)
    assert type(caught.value).__name__ in ("WeightsError", "ConfigError")


def test_a_group_of_settings_is_chosen_by_name_and_patterns_end_soon(tmp_path: Path) -> None:
    tensors, values = files.pack_quantized()(matrix())
    linear, named = (dict(PACKED["config_groups"]["group_0"]) for _ in range(2))
    linear["weights"] = {**linear["weights"], "num_bits": 8}
    for pattern in ("re:.*up_proj$", NAME, "re:model[.]layers[.][0-9]+[.]mlp.*"):
        named["targets"] = [pattern]
        config = {**PACKED, "config_groups": {"all": linear, "some": named}}
        if "[" in pattern:
            with pytest.raises(WeightsError, match="a pattern that is not supported"):
                opened(write(tmp_path / "model", tensors, config))
            continue
        with opened(write(tmp_path / "model", tensors, config)) as loader:
            assert np.array_equal(loader.get(f"{NAME}.weight"), values)
    named["targets"] = ["re:(a+)+$"]
    with pytest.raises(WeightsError, match="a pattern that is not supported"):
        opened(write(tmp_path / "model", tensors, {**PACKED, "config_groups": {"all": linear, "some": named}}))


def changed(tensors: Mapping[str, np.ndarray], **changes: Any) -> dict[str, np.ndarray]:
    return {name: changes.get(name, array) for name, array in tensors.items() if changes.get(name, array) is not None}


def weights_of(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Returns a configuration of compressed-tensors with other arguments of weights."""
    group = config["config_groups"]["group_0"]
    return {**config, "config_groups": {"group_0": {**group, "weights": {**group["weights"], **changes}}}}


GPTQ = files.gptq()(matrix())[0]
FOUR = files.compressed_config(4, "int", "channel", "int-quantized", symmetric=False)
BYTES = {"weight": np.zeros((48, 96), np.int8), "weight_scale": np.ones((48, 1), np.float32)}
CT = files.pack_quantized()(matrix())[0]
BLOCK = files.fp8_blocks(matrix())[0]
FAULTS: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], str]] = {
    "no scales": (changed(GPTQ, scales=None), gptq_config(), "has no tensor .*scales"),
    "a group too few": (changed(GPTQ, scales=GPTQ["scales"][1:]), gptq_config(), r"scales has shape .2, 48., and"),
    "zeros of another size": (changed(GPTQ, qzeros=GPTQ["qzeros"][:, 1:]), gptq_config(), "qzeros has shape"),
    "integers as floats": (changed(GPTQ, qweight=GPTQ["qweight"].view(np.float32)), gptq_config(), "F32, and only I32"),
    "a group beyond the last": (changed(GPTQ, g_idx=GPTQ["g_idx"] + 1), gptq_config(), "in groups 1 to 3 of 3"),
    "a group before the first": (changed(GPTQ, g_idx=GPTQ["g_idx"] - 1), gptq_config(), "in groups -1 to 1 of 3"),
    "a scale that is none": (changed(GPTQ, scales=GPTQ["scales"] * np.nan), gptq_config(), "scales that are not"),
    "groups of another size": (GPTQ, gptq_config(group_size=1), "has shape"),
    "a shape that is a lie": (
        changed(CT, weight_shape=np.array([48, 2**40], np.int64)), PACKED, r"weight_shape is \[48, 1099511627776\]",
    ),
    "a negative shape": (changed(CT, weight_shape=np.array([48, -96], np.int64)), PACKED, r"is \[48, -96\]"),
    "an infinite scale": (changed(CT, weight_scale=CT["weight_scale"] * np.inf), PACKED, "scales that are not finite"),
    "zeros of more bits": (
        {**BYTES, "weight_zero_point": np.full((48, 1), 9, np.int8)}, FOUR, "has zero points of more than 4 bits",
    ),
    "integers of more bits": (
        {**BYTES, "weight": np.full((48, 96), -9, np.int8), "weight_zero_point": np.zeros((48, 1), np.int8)}, FOUR,
        "integers of more than 4",
    ),
    "a matrix without scales": (changed(CT, weight_scale=None), PACKED, r"weight_packed, but no .*\.weight_scale"),
    "scales without a matrix": (changed(CT, weight_packed=None), PACKED, "but no matrix"),
    "another number of blocks": (changed(BLOCK, weight_scale_inv=BLOCK["weight_scale_inv"][1:]), FP8, "has shape"),
    "no order of inputs": (
        changed(GPTQ, g_idx=None), gptq_config(desc_act=True), r"inputs were reordered, and it has no tensor .*\.g_idx",
    ),
    "two names of a setting": (GPTQ, gptq_config(checkpoint_format="gptq", format="gptq_v2"), "'gptq' and 'gptq_v2'"),
    "two names of another": (files.awq()(matrix())[0], {**AWQ, "w_bit": 4, "bits": 8}, "w_bit and bits are 4 and 8"),
    "a plain matrix beside it": ({**GPTQ, "weight": matrix()}, gptq_config(), "two matrices .*up_proj.weight"),
    "a plain one beside a packed one": ({**CT, "weight": matrix()}, PACKED, "two matrices .*up_proj.weight"),
    "two kinds of scales": (
        {**BLOCK, "weight_scale": np.ones(BLOCK["weight_scale_inv"].shape, np.float32)}, FP8, "two matrices",
    ),
    "no rows": (
        {"qweight": np.zeros((12, 0), "i4"), "qzeros": np.zeros((3, 0), "i4"), "scales": np.zeros((3, 0), "f2")},
        gptq_config(), r"is empty: \[0, 96\]",
    ),
    "no columns": (
        {"weight": np.zeros((48, 0), np.int8), "weight_scale": BYTES["weight_scale"]}, INT8, r"is empty: \[48, 0\]",
    ),
    "no order of packed inputs": (CT, weights_of(PACKED, actorder="group"), r"has no tensor .*\.weight_g_idx"),
    "no zeros": (CT, UNEVEN, r"is not symmetric, and there is no .*\.weight_zero_point"),
    "zeros of symmetric integers": (files.pack_quantized(symmetric=False)(matrix())[0], PACKED, "is symmetric, and"),
    "one zero for a packed matrix": (
        {**CT, "weight_scale": np.ones(1, np.float32), "weight_zero_point": np.ones(1, np.int8)},
        files.compressed_config(4, "int", "tensor", "pack-quantized", symmetric=False), "one for a whole packed matrix",
    ),
    "a symmetry that is a word": (CT, weights_of(PACKED, symmetric="yes"), "is 'yes', not true or false"),
    "blocks that are none": (
        changed(BLOCK, weight_scale_inv=BLOCK["weight_scale_inv"] * np.nan), FP8, "scales that are not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_tensors_that_do_not_fit_are_refused_by_name(case: str, tmp_path: Path) -> None:
    tensors, config, message = FAULTS[case]
    directory = write(tmp_path / "model", tensors, config)

    def read() -> None:
        with opened(directory) as loader:
            loader.get(f"{NAME}.weight")

    with pytest.raises(WeightsError, match=message):
        read()


@pytest.mark.parametrize("case", ["a group too few", "integers as floats", "one zero for a packed matrix", "no zeros"])
def test_a_layout_that_is_not_supported_is_not_called_damaged(case: str, tmp_path: Path) -> None:
    tensors, config, _ = FAULTS[case]
    with pytest.raises(WeightsError) as caught:
        opened(write(tmp_path / "model", tensors, config))
    assert "unquantised checkpoint, or another one" in str(caught.value.hint)
