# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding, KV cache and attention."""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph.dtype import DataType
from atb_core.graph.network import record
from atb_core.graph.ops.attention import CalcType, MaskType, PagedAttention, ReshapeAndCache, SelfAttention
from atb_core.graph.ops.rope import Rope
from atb_core.graph.tensor import Tensor

__all__ = ["paged_attention", "reshape_and_cache", "rope"]


def rope(
    q: Tensor, k: Tensor, cos_table: Tensor, sin_table: Tensor, seqlen: Tensor, rotary_coeff: int = 2
) -> tuple[Tensor, Tensor]:
    """Rotates q `[T, heads * head_dim]` and k `[T, kv_heads * head_dim]` by the angles in the tables `[T, head_dim]`.

    Args:
        q: queries.
        k: keys.
        cos_table: cosines of each token's angles, both halves filled.
        sin_table: sines of each token's angles, both halves filled.
        seqlen: int32 `[B]`; an input of ATB's operation that the computation does not use.
        rotary_coeff: 2 pairs element i with `i + head_dim / 2`, head_dim pairs neighbours.

    Returns:
        The rotated q and k.
    """
    q_out, k_out = record(Rope(rotary_coeff), (q, k, cos_table, sin_table, seqlen))
    return q_out, k_out


def reshape_and_cache(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Writes k and v into the caches in place; into caches of int8 as integers with a scale for each head of a token.

    Args:
        k: keys `[T, kv_heads, head_dim]`.
        v: values `[T, kv_heads, head_dim]`.
        k_cache: `[num_blocks, block_size, kv_heads, head_dim]`; in int8, for k of floats, `head_dim + 4` wide.
        v_cache: the same.
        slot_mapping: int32 `[T]`, the slot `block * block_size + offset` of each token; negative to skip it.
    """
    int8_kv = k_cache.dtype is DataType.INT8 and k.dtype is not DataType.INT8
    record(ReshapeAndCache(int8_kv), (k, v, k_cache, v_cache, slot_mapping))


def paged_attention(
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    k_cache: Tensor | None = None,
    v_cache: Tensor | None = None,
    mask: Tensor | None = None,
    mask_type: MaskType = MaskType.UNDEFINED,
    block_table: Tensor | None = None,
    head_num: int = 0,
    kv_head_num: int | None = None,
    q_lens: Tensor | None = None,
    kv_lens: Tensor | None = None,
    slopes: Tensor | None = None,
    q_scale: float = 1.0,
    qk_scale: float = 1.0,
    is_triu_mask: bool = False,
    high_precision: bool = False,
    mla_v_head_size: int = 0,
    logits_soft_cap: float = 0.0,
) -> Tensor:
    """Computes attention `[T, heads, head_dim]` to k and v of packed sequences (prefill) or to paged caches (decode).

    Args:
        q: queries `[T, heads, head_dim]`.
        k: keys `[T, kv_heads, head_dim]`; prefill only.
        v: values `[T, kv_heads, head_dim]`; prefill only.
        k_cache: `[num_blocks, block_size, kv_heads, head_dim]`, in int8 `head_dim + 4` wide; decode only.
        v_cache: the same; decode only.
        mask: added to the scores, in shapes that depend on `mask_type`, see `SelfAttention` and `PagedAttention`.
        mask_type: type of the mask.
        block_table: int32 `[B, max_blocks]`, the blocks of each sequence; decode only.
        head_num: number of query heads.
        kv_head_num: number of key and value heads; `head_num` by default.
        q_lens: int32 `[B]`, number of new tokens of each sequence in decode; by default 1.
        kv_lens: int32 `[B]`, tokens of each sequence (prefill) or context lengths (decode).
        slopes: ALiBi slopes of compressed masks; refused.
        q_scale: factor of the queries.
        qk_scale: factor of the scores.
        is_triu_mask: makes prefill causal.
        high_precision: no effect, ops accumulate in float32.
        mla_v_head_size: size of MLA's value heads; refused.
        logits_soft_cap: caps a scaled score s by `cap * tanh(s / cap)` before the mask; 0 for none. ATB has none.

    Raises:
        GraphError: inputs for prefill and decode are mixed, a required one is missing, or an argument is refused.
    """
    _refuse(slopes, mla_v_head_size)
    masked = MaskType(mask_type) is not MaskType.UNDEFINED
    masks, kv_lens = (_required(f"a mask for {mask_type}", mask),) if masked else (), _required("kv_lens", kv_lens)
    heads = (head_num, kv_head_num or head_num, q_scale, qk_scale, mask_type)
    if _is_prefill(k, v, k_cache, v_cache):
        assert k is not None and v is not None
        prefill = SelfAttention(*heads, is_triu_mask=is_triu_mask, logits_soft_cap=logits_soft_cap)
        return record(prefill, (q, k, v, *masks, kv_lens))[0]
    assert k_cache is not None and v_cache is not None
    block_table, lens = _required("block_table", block_table), () if q_lens is None else (q_lens,)
    calc = CalcType.SPEC if lens else CalcType.UNDEFINED
    op = PagedAttention(*heads, calc_type=calc, logits_soft_cap=logits_soft_cap, int8_kv=k_cache.dtype is DataType.INT8)
    return record(op, (q, k_cache, v_cache, block_table, kv_lens, *masks, *lens))[0]


def _refuse(slopes: Tensor | None, mla_v_head_size: int) -> None:
    if slopes is not None or mla_v_head_size:
        raise GraphError(
            "paged_attention does not support slopes or mla_v_head_size",
            hint="Give ALiBi's whole bias as a mask of the type ALIBI; multi_latent_attention has latent heads.",
        )


def _required(name: str, value: Tensor | None) -> Tensor:
    if value is None:
        raise GraphError(f"paged_attention needs {name}")
    return value


def _is_prefill(k: Tensor | None, v: Tensor | None, k_cache: Tensor | None, v_cache: Tensor | None) -> bool:
    prefill, decode = k is not None and v is not None, k_cache is not None and v_cache is not None
    if prefill == decode or (k is None) != (v is None) or (k_cache is None) != (v_cache is None):
        raise GraphError("paged_attention takes either k and v (prefill) or k_cache and v_cache (decode)")
    return prefill
