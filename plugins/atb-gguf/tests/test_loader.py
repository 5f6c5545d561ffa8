# SPDX-License-Identifier: Apache-2.0
"""A GGUF checkpoint under Hugging Face names, in one floating type."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import gguf.quants
import numpy as np
import pytest
import torch
from checkpoint.checkpoints import write
from gguf import GGMLQuantizationType as Type
from gguf_bytes import TINY, TINY_SHAPES, gguf_bytes, gguf_tensor_info, tiny_gguf

from atb_core.checkpoint import FormatRules, open_checkpoint, open_weights
from atb_core.errors import WeightsError
from atb_core.graph import DataType
from atb_core.graph.arrays import to_torch
from atb_gguf.config import read_gguf_config

NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
    "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "model.layers.0.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
    "model.layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
    "model.layers.0.mlp.up_proj.weight": "blk.0.ffn_up.weight",
    "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
}


def tiny(tmp_path: Path, kind: Type = Type.F32, **options: object) -> tuple[Path, dict[str, np.ndarray]]:
    content, values = tiny_gguf(kind, **options)  # type: ignore[arg-type]
    return write(tmp_path / "tiny.gguf", content), values


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (Type.F32, DataType.FLOAT),
        (Type.F16, DataType.FLOAT16),
        (Type.BF16, DataType.BF16),
        (Type.Q8_0, DataType.BF16),
        (Type.Q4_1, DataType.BF16),
    ],
)
def test_tensors_come_under_their_names_in_the_type_of_the_matrices(
    kind: Type, dtype: DataType, tmp_path: Path
) -> None:
    path, values = tiny(tmp_path, kind)
    with open_weights(path) as loader:
        assert set(loader.names()) == set(NAMES)
        for name, stored in NAMES.items():
            value = values[stored]
            if value.ndim > 1:
                value = gguf.quants.dequantize(gguf.quants.quantize(value, kind), kind)
            expected = torch.from_numpy(value.copy()).to(getattr(torch, dtype.short))
            assert loader.dtype(name) is dtype
            assert loader.shape(name) == TINY_SHAPES[stored]
            assert torch.equal(to_torch(loader.get(name)), expected)
    assert read_gguf_config(path)["torch_dtype"] == dtype.short


@pytest.mark.parametrize("dtype", [DataType.FLOAT, DataType.FLOAT16, DataType.BF16])
def test_the_caller_may_choose_the_type(dtype: DataType, tmp_path: Path) -> None:
    path, values = tiny(tmp_path, Type.Q8_0)
    stored = gguf.quants.quantize(values["token_embd.weight"], Type.Q8_0)
    exact = torch.from_numpy(gguf.quants.dequantize(stored, Type.Q8_0))
    with open_weights(path, dtype=dtype) as loader:
        assert torch.equal(to_torch(loader.get("model.embed_tokens.weight")), exact.to(getattr(torch, dtype.short)))


def test_slices_are_what_narrowing_gives(tmp_path: Path) -> None:
    path, _ = tiny(tmp_path, Type.Q8_0)
    for rules in (FormatRules(), FormatRules(permuted_qk=True)):
        with open_weights(path, {"GGUF": rules}) as loader:
            for name in loader.names():
                whole = to_torch(loader.get(name))
                for dim, size in enumerate(whole.shape):
                    for start, stop in ((0, size), (0, 0), (size // 3, size // 2)):
                        got = to_torch(loader.get_slice(name, dim, start, stop))
                        assert got.is_contiguous()
                        assert torch.equal(got, whole.narrow(dim, start, stop - start))


def test_a_tensor_of_many_chunks_is_whole(tmp_path: Path) -> None:
    big = np.random.default_rng(2).standard_normal((1500, 64), dtype=np.float32)
    path, _ = tiny(tmp_path, Type.F16, tensors={"token_embd.weight": big})
    with open_weights(path) as loader:
        assert torch.equal(to_torch(loader.get("model.embed_tokens.weight")), torch.from_numpy(big).half())


def test_permuted_projections_are_put_back(tmp_path: Path) -> None:
    """The file interleaves the halves that a rotation pairs; the model wants them one after the other."""
    path, values = tiny(tmp_path)
    heads, width = 4, 16
    stored = torch.from_numpy(values["blk.0.attn_q.weight"])
    with open_weights(path, {"GGUF": FormatRules(permuted_qk=True)}) as loader:
        query = to_torch(loader.get("model.layers.0.self_attn.q_proj.weight"))
        assert torch.equal(
            to_torch(loader.get("model.layers.0.self_attn.v_proj.weight")),
            torch.from_numpy(values["blk.0.attn_v.weight"]),
        )
    for head in range(heads):
        for pair in range(width // 2):
            assert torch.equal(query[head * width + pair], stored[head * width + 2 * pair])
            assert torch.equal(query[head * width + width // 2 + pair], stored[head * width + 2 * pair + 1])


def test_a_family_transforms_what_its_files_store_otherwise(tmp_path: Path) -> None:
    path, values = tiny(tmp_path)
    rules = FormatRules(
        transforms={
            "model.layers.{}.input_layernorm.weight": lambda norm: norm - 1,
            "model.layers.{}.mlp.down_proj.weight": lambda matrix: matrix[::-1],
        }
    )
    with open_weights(path, {"GGUF": rules}) as loader:
        stored = torch.from_numpy(values["blk.0.attn_norm.weight"])
        assert torch.equal(to_torch(loader.get("model.layers.0.input_layernorm.weight")), stored - 1)
        matrix = torch.from_numpy(values["blk.0.ffn_down.weight"]).flip(0)
        assert torch.equal(to_torch(loader.get_slice("model.layers.0.mlp.down_proj.weight", 0, 1, 3)), matrix[1:3])
        assert torch.equal(to_torch(loader.get("model.norm.weight")), torch.from_numpy(values["output_norm.weight"]))
    shorter = FormatRules(transforms={"model.norm.weight": lambda norm: norm[1:]})
    cause = r"rule makes \[\d+\] of model.norm.weight"
    with open_weights(path, {"GGUF": shorter}) as loader, pytest.raises(WeightsError, match=cause):
        to_torch(loader.get("model.norm.weight"))


def test_a_bias_and_a_tensor_that_only_the_family_knows(tmp_path: Path) -> None:
    extra = {
        "blk.0.attn_q.bias": np.ones(64, dtype=np.float32),
        "output.weight": np.ones((40, 64), dtype=np.float32),
        "blk.0.extra_norm.weight": np.ones(64, dtype=np.float32),
        "blk.0.exp_probs_b.bias": np.ones(4, dtype=np.float32),
    }
    path, _ = tiny(tmp_path, tensors=extra)
    with pytest.raises(WeightsError, match=r"unknown meaning.*extra_norm.*exp_probs_b"):
        open_weights(path)
    names = {
        "blk.{}.extra_norm": "model.layers.{}.extra_norm",
        "blk.{}.exp_probs_b.bias": "model.layers.{}.mlp.gate.correction",
    }
    rules = FormatRules(names=names, config={"hidden_act": "gelu"})
    with open_weights(path, {"GGUF": rules}) as loader:
        added = {
            f"model.layers.0.{name}" for name in ("self_attn.q_proj.bias", "extra_norm.weight", "mlp.gate.correction")
        }
        assert set(loader.names()) == {*NAMES, "lm_head.weight", *added}
    checkpoint = open_checkpoint(path)
    checkpoint.set_rules({"GGUF": rules})
    config = checkpoint.config()
    assert config["attention_bias"] is True
    assert config["tie_word_embeddings"] is False
    assert config["hidden_act"] == "gelu"


def test_a_quantised_type_that_is_not_supported_is_named(tmp_path: Path) -> None:
    info = gguf_tensor_info("token_embd.weight", (2, 256), int(Type.IQ4_XS), 0)
    path = write(tmp_path / "x.gguf", gguf_bytes(TINY, [info], bytes(4096)))
    with pytest.raises(WeightsError, match=r"IQ4_XS \(1 tensors\)"):
        open_weights(path)


def test_a_file_cut_while_it_is_open_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path, _ = tiny(tmp_path)
    with open_weights(path) as loader:
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(WeightsError, match="ends inside tensor"):
            _ = [to_torch(loader.get(name)) for name in loader.names()]
