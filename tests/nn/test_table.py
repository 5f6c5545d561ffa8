# SPDX-License-Identifier: Apache-2.0
"""Every function of ATB-Models' `nn` is called with its keywords, and records its op; what is refused says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atb_core import nn
from atb_core.errors import AtbError
from atb_core.graph import DataType, Network, Tensor
from atb_core.nn import functional as F
from atb_core.nn.distributed import distributed as dist
from atb_core.nn.network_manager import get_default_net

INT32, INT64, INT8, FLOAT16 = DataType.INT32, DataType.INT64, DataType.INT8, DataType.FLOAT16


def t(*shape: int, dtype: DataType = FLOAT16) -> Tensor:
    """An input; each has a name of its own."""
    t.count += 1  # type: ignore[attr-defined]
    return Tensor(f"t{t.count}", shape, dtype)  # type: ignore[attr-defined]


t.count = 0  # type: ignore[attr-defined]


def caches() -> dict[str, Tensor]:
    return {"k_cache": t(4, 16, 2, 8), "v_cache": t(4, 16, 2, 8)}


def decode(**more: Any) -> dict[str, Any]:
    given = {"q": t(3, 4, 8), **caches(), "block_table": t(3, 2, dtype=INT32), "head_num": 4, "kv_head_num": 2}
    return {**given, "kv_lens": t(3, dtype=INT32), "qk_scale": 0.5, "q_scale": 1.0, "high_precision": False, **more}


def prefill(**more: Any) -> dict[str, Any]:
    given = {"q": t(6, 4, 8), "k": t(6, 2, 8), "v": t(6, 2, 8), "kv_lens": t(2, dtype=INT32), "head_num": 4}
    return {**given, "kv_head_num": 2, "qk_scale": 0.5, "mask_type": F.MaskType.UNDEFINED, **more}


Call = Callable[[], Any]
#: The op that a call records last. The arguments have the original's names and types; functions of packages, such as
#: `std` of atb-ops, are called in the tests of those.
CALLS: dict[str, tuple[Call, str]] = {
    "linear": (
        lambda: F.linear(input_=t(6, 8), weight=t(4, 8), bias=t(4), transpose_a=False, transpose_b=True),
        "Linear",
    ),
    "grouped_matmul": (
        lambda: F.grouped_matmul(
            input_=t(6, 8), weight=t(2, 8, 4), bias=None, group_list=t(2, dtype=INT64), transpose_b=False
        ),
        "GroupedMatmul",
    ),
    "rms_norm": (lambda: F.rms_norm(input_=t(6, 8), weight=t(8), eps=1e-6), "RmsNorm"),
    "rope": (
        lambda: F.rope(
            q=t(6, 32), k=t(6, 16), cos_table=t(6, 8), sin_table=t(6, 8), seqlen=t(2, dtype=INT32), rotary_coeff=2
        ),
        "Rope",
    ),
    "reshape_and_cache": (
        lambda: F.reshape_and_cache(k=t(6, 2, 8), v=t(6, 2, 8), **caches(), slot_mapping=t(6, dtype=INT32)),
        "ReshapeAndCache",
    ),
    "paged_attention of prompts": (lambda: F.paged_attention(**prefill()), "SelfAttention"),
    "paged_attention with a triangle": (
        lambda: F.paged_attention(**prefill(mask=t(8, 8), mask_type=F.MaskType.NORM, is_triu_mask=True)),
        "SelfAttention",
    ),
    "paged_attention of tokens": (lambda: F.paged_attention(**decode()), "PagedAttention"),
    "paged_attention with SPEC": (
        lambda: F.paged_attention(
            **decode(q=t(5, 4, 8), q_lens=t(3, dtype=INT32), mask=t(5, 32), mask_type=F.MaskType.SPEC)
        ),
        "PagedAttention",
    ),
    **{
        f"activation {kind.name}": (
            lambda kind=kind: F.activation(input_=t(6, 8), act_type=kind, scale=1.0, dim=-1, gelu_mode=F.GeluMode.TANH),
            "Activation",
        )
        for kind in F.ActType
        if kind.name in ("RELU", "GELU", "FAST_GELU", "SWISH", "LOG", "SWIGLU", "SIGMOID")
    },
    "softmax": (lambda: F.softmax(input_tensor=t(6, 8), dims=[-1]), "Softmax"),
    "gather": (lambda: F.gather(input_=t(9, 8), dim=0, index=t(6, dtype=INT64), batch_dims=0), "Gather"),
    "sort": (lambda: F.sort(t(6, 8), num=2), "Sort"),
    "argsort": (lambda: F.argsort(t(6, dtype=INT32)), "Argsort"),
    "split into parts": (lambda: F.split(tensor=t(6, 8), split_size_or_sections=2, dim=-1), "Split"),
    "split by sizes": (lambda: F.split(tensor=t(6, 8), split_size_or_sections=[3, 5], dim=1), "Split"),
    "cat": (lambda: F.cat(tensors=[t(6, 8), t(6, 8)], dim=0), "Concat"),
    **{name: (lambda name=name: getattr(F, name)(input_=t(6, 8)), "Elewise") for name in ("cos", "sin", "neg")},
    "logical_not": (lambda: F.logical_not(input_=t(6, dtype=INT8)), "Elewise"),
    **{
        name: (lambda name=name: getattr(F, name)(input_=t(6, dtype=INT8), other=t(6, dtype=INT8)), "Elewise")
        for name in ("logical_or", "logical_and")
    },
    "equal": (lambda: F.equal(input_=t(6), other=t(6)), "Elewise"),
    **{
        name: (lambda name=name: getattr(F, name)(input_=t(6, 8), dims=[1]), "Reduce")
        for name in ("amax", "amin", "sum_")
    },
    "moe_topk_softmax": (lambda: F.moe_topk_softmax(input_=t(6, 8), k=2), "MoeTopkSoftmax"),
    "moe_init_routing": (
        lambda: F.moe_init_routing(input_=t(6, 8), expert_idx=t(6, 2, dtype=INT32), topk_num=2, expert_num=8),
        "MoeInitRouting",
    ),
    "moe_token_unpermute": (
        lambda: F.moe_token_unpermute(
            permuted_tokens=t(12, 8), sorted_indices=t(12, dtype=INT32), experts_weights=t(6, 2)
        ),
        "MoeTokenUnpermute",
    ),
    "Tensor +": (lambda: t(6) + t(6), "Elewise"),
    "Tensor *": (lambda: t(6) * 2.0, "Elewise"),
    "Tensor ~": (lambda: ~t(6, dtype=INT8), "Elewise"),
    "Tensor.to": (lambda: t(6).to(DataType.ACL_FLOAT), "Cast"),
    "Tensor.permute": (lambda: t(6, 8).permute(dims=[1, 0]), "Transpose"),
    "Tensor.repeat": (lambda: t(6, 8).repeat(repeats=[2, 1]), "Repeat"),
    "modules.RmsNorm": (lambda: nn.modules.RmsNorm("n", 1e-6)(t(6, 8)), "RmsNorm"),
    "modules.Linear": (lambda: nn.modules.Linear("w", False)(t(6, 8)), "Linear"),
}
#: What the original has and this project refuses, with the message.
REFUSED: dict[str, tuple[Call, str]] = {
    "a bias of one row": (lambda: F.linear(t(6, 8), t(8, 4), t(1, 4), False, False), r"bias must be \[4\]"),
    "both keys and caches": (lambda: F.paged_attention(**prefill(**caches())), "cache"),
    "neither": (lambda: F.paged_attention(q=t(6, 4, 8), kv_lens=t(2, dtype=INT32), head_num=4), "cache"),
    "a mask of no meaning for tokens": (
        lambda: F.paged_attention(**decode(mask=t(3, 32), mask_type=F.MaskType.NORM_COMPRESS)), "NORM_COMPRESS",
    ),
    "an unknown reduction": (lambda: dist.all_reduce(t(6), all_reduce_type="MEAN"), "SUM, PROD, MAX, MIN"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_with_the_originals_keywords_records_its_op(name: str) -> None:
    call, op = CALLS[name]
    with Network() as net:
        call()
    assert net.nodes[-1].op.name == op


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    call, message = REFUSED[name]
    with Network(), pytest.raises((AtbError, ValueError), match=message):
        call()


def test_no_function_of_the_table_is_left_out() -> None:
    """Every export of `nn.functional` is called above, but for those that only this project has."""
    own = {"tanh", "layer_norm", "batch_matmul", "lora", "ActType", "GeluMode", "MaskType"}
    assert set(F.__all__) - own <= {name.split()[0].rstrip(",") for name in CALLS}


def test_groups_have_the_originals_keywords() -> None:
    group = dist.new_group(ranks=[0], backend="hccl", buffer_size=128)
    assert group == "-1" and isinstance(dist.is_initialized(), bool)
    with Network():
        x = t(6)
        assert dist.all_reduce(send_tensor=x, process_group=group, all_reduce_type=dist.AllReduceType.SUM) is x
        assert dist.all_gather(send_tensor=x, process_group=group) is x
    assert get_default_net() is not None
