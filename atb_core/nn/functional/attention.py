# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding, KV cache and attention."""

from __future__ import annotations

from atb_core.errors import GraphError
from atb_core.graph.network import record
from atb_core.graph.ops.attention import CalcType, MaskType, PagedAttention, ReshapeAndCache, SelfAttention
from atb_core.graph.ops.rope import Rope
from atb_core.graph.tensor import Tensor


def rope(
    q: Tensor, k: Tensor, cos_table: Tensor, sin_table: Tensor, seqlen: Tensor, rotary_coeff: int = 2
) -> tuple[Tensor, Tensor]:
    """Returns `q [T, Hq*D]` and `k [T, Hk*D]` rotated by the angles in cos_table and sin_table, `[T, D]` each."""
    q_out, k_out = record(Rope(rotary_coeff), (q, k, cos_table, sin_table, seqlen))
    return q_out, k_out


def reshape_and_cache(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slot_mapping: Tensor) -> None:
    """Writes k and v `[T, KV, D]` into the caches `[NB, BS, KV, D]` at `slot_mapping [T]` int32, in place."""
    record(ReshapeAndCache(), (k, v, k_cache, v_cache, slot_mapping))


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
) -> Tensor:
    """Records attention of `q [T, H, D]` to k and v of the same packed sequences (prefill) or to the caches (decode).

    Prefill takes k and v [T, KV, D], `kv_lens` [B] int32 (tokens of each sequence) and, with `is_triu_mask`,
    is causal. Decode takes k_cache and v_cache [NB, BS, KV, D], `block_table` [B, MB] int32 and `kv_lens`
    (context lengths); `q_lens` [B] int32 allows several new tokens a sequence. -> [T, H, D].

    Every op here accumulates in float32, so `high_precision` changes nothing. ALiBi slopes and MLA value
    heads are refused by name.
    """
    prefill, decode = k is not None and v is not None, k_cache is not None and v_cache is not None
    if prefill == decode or (k is None) != (v is None) or (k_cache is None) != (v_cache is None):
        raise GraphError("paged_attention takes either k and v (prefill) or k_cache and v_cache (decode)")
    if slopes is not None or mla_v_head_size:
        raise GraphError("paged_attention does not support slopes (ALiBi) or mla_v_head_size yet")
    if kv_lens is None:
        raise GraphError("paged_attention needs kv_lens, the lengths of the sequences")
    masked = MaskType(mask_type) is not MaskType.UNDEFINED
    if masked and mask is None:
        raise GraphError(f"mask_type {mask_type} needs a mask")
    scales = (head_num, kv_head_num or head_num, q_scale, qk_scale, mask_type)
    masks = (mask,) if masked and mask is not None else ()
    if prefill:
        assert k is not None and v is not None
        op = SelfAttention(*scales, is_triu_mask=is_triu_mask)
        return record(op, (q, k, v, *masks, kv_lens))[0]
    if block_table is None:
        raise GraphError("paged_attention with caches needs block_table")
    assert k_cache is not None and v_cache is not None
    calc = CalcType.UNDEFINED if q_lens is None else CalcType.SPEC
    lens = () if q_lens is None else (q_lens,)
    return record(PagedAttention(*scales, calc_type=calc), (q, k_cache, v_cache, block_table, kv_lens, *masks, *lens))[
        0
    ]
