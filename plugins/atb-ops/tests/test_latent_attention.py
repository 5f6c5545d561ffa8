# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention is softmax attention whose values are the compressed part of the keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from atb_core.engine import BACKENDS
from atb_core.errors import GraphError
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn import functional as F

LOCAL = [backend for backend in BACKENDS if backend in ("cpu", "reference")]
HEADS, RANK, ROPE, BLOCK = 8, 512, 64, 16
LENS = (37, 5, 16)
TABLES = torch.tensor([[6, 0, 3], [2, 0, 0], [5, 0, 0]], dtype=torch.int32)


def step(news: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "q_nope": (sum(news), HEADS, RANK),
        "q_rope": (sum(news), HEADS, ROPE),
        "ct_kv": (8, BLOCK, 1, RANK),
        "k_rope": (8, BLOCK, 1, ROPE),
    }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "block_tables": TABLES, "context_lens": torch.tensor(LENS, dtype=torch.int32)}


def expected(given: dict[str, torch.Tensor], news: list[int], scale: float) -> torch.Tensor:
    rows, start = [], 0
    for table, total, new in zip(TABLES, LENS, news, strict=True):
        blocks = table[: -(-total // BLOCK)].long()
        values = given["ct_kv"][blocks].flatten(0, 2)[:total].double()
        keys = torch.cat([values, given["k_rope"][blocks].flatten(0, 2)[:total].double()], -1)
        for token in range(new):
            query = torch.cat([given["q_nope"][start + token], given["q_rope"][start + token]], -1).double()
            seen = total - new + token + 1
            rows.append((query @ keys[:seen].T * scale).softmax(-1) @ values[:seen])
        start += new
    return torch.stack(rows).float()


def run(backend: str, given: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    with Network() as network:
        tensors = {name: Tensor(name) for name in given}
        tensors["q_nope"] = Tensor("q_nope", tuple(given["q_nope"].shape), DataType.FLOAT)
        out = F.multi_latent_attention(**tensors, head_num=HEADS, qk_scale=0.05, kv_head_num=1, **options)
        network.mark_output(out, "out")
    return network.build_engine(backend=backend).forward(given)["out"]


@pytest.mark.parametrize("backend", LOCAL)
def test_one_new_token_of_each_sequence_sees_its_whole_context(backend: str) -> None:
    given, news = step([1, 1, 1]), [1, 1, 1]
    torch.testing.assert_close(run(backend, given), expected(given, news, 0.05), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", LOCAL)
def test_several_new_tokens_see_none_after_themselves(backend: str) -> None:
    news = [4, 1, 16]
    given = step(news)
    golden = expected(given, news, 0.05)
    options = {"calc_type": "CALC_TYPE_SPEC", "mask_type": "MASK_TYPE_CAUSAL_MASK"}
    given["qseqlen"] = torch.tensor(news, dtype=torch.int32)
    torch.testing.assert_close(run(backend, given, **options), golden, rtol=1e-4, atol=1e-5)
    given["mask"] = torch.zeros(sum(news), max(LENS))
    options["mask_type"] = "MASK_TYPE_SPEC"
    torch.testing.assert_close(run(backend, given, **options), golden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache_mode": "NZCACHE"}, "does not have CacheMode NZCACHE"),
        ({"calc_type": "CALC_TYPE_RING"}, "does not have CalcType CALC_TYPE_RING"),
        ({"calc_type": "CALC_TYPE_SPEC"}, "go together"),
        ({"mask_type": "MASK_TYPE_CAUSAL_MASK"}, "several new tokens need a mask"),
        ({"kv_head_num": 2}, "has one key head, not 2"),
        ({"qk_descale": Tensor("scale")}, "no quantised caches"),
    ],
)
def test_what_the_function_does_not_have_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    tensors = [Tensor(name) for name in ("q_nope", "q_rope", "ct_kv", "k_rope", "tables", "lens")]
    with Network(), pytest.raises(GraphError, match=message):
        F.multi_latent_attention(*tensors, head_num=HEADS, **options)


def test_the_size_of_the_values_has_to_be_known() -> None:
    tensors = [Tensor(name) for name in ("q_nope", "q_rope", "ct_kv", "k_rope", "tables", "lens")]
    with Network(), pytest.raises(GraphError, match="needs the shape of q_nope"):
        F.multi_latent_attention(*tensors, head_num=HEADS)
