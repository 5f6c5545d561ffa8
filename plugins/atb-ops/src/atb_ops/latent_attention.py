# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention (MLA, DeepSeek-V2, arXiv:2405.04434) over a paged cache of compressed keys and values."""

from __future__ import annotations

from enum import Enum

from atb_core.errors import GraphError
from atb_core.graph import Tensor
from atb_core.nn.functional import MaskType as PagedMaskType
from atb_core.nn.functional import cat, paged_attention


class MaskType(str, Enum):
    """Types of masks that `multi_latent_attention` takes."""

    UNDEFINED = "UNDEFINED"
    MASK_TYPE_SPEC = "MASK_TYPE_SPEC"
    MASK_TYPE_CAUSAL_MASK = "MASK_TYPE_CAUSAL_MASK"


class CalcType(str, Enum):
    """Forms of a step: one new token of each sequence, or several (SPEC)."""

    CALC_TYPE_UNDEFINED = "CALC_TYPE_UNDEFINED"
    CALC_TYPE_SPEC = "CALC_TYPE_SPEC"


class CacheMode(str, Enum):
    """Layouts of the cache."""

    KROPE_CTKV = "KROPE_CTKV"


def multi_latent_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    ct_kv: Tensor,
    k_rope: Tensor,
    block_tables: Tensor,
    context_lens: Tensor,
    mask: Tensor | None = None,
    qseqlen: Tensor | None = None,
    qk_descale: Tensor | None = None,
    pv_descale: Tensor | None = None,
    head_num: int = 0,
    qk_scale: float = 1.0,
    kv_head_num: int = 0,
    mask_type: MaskType | str = MaskType.UNDEFINED,
    calc_type: CalcType | str = CalcType.CALC_TYPE_UNDEFINED,
    cache_mode: CacheMode | str = CacheMode.KROPE_CTKV,
) -> Tensor:
    """Computes attention of queries to a cache whose compressed vectors are both keys and values.

    It is recorded as paged attention with the head size `rank + rope`, whose caches are the two parts in one tensor:
    right on every engine that takes such heads, but every step copies the cache.

    Args:
        q_nope: queries without positions, `[T, heads, rank]`.
        q_rope: rotated queries, `[T, heads, rope]`.
        ct_kv: compressed keys and values, `[num_blocks, block_size, 1, rank]`.
        k_rope: rotated keys, `[num_blocks, block_size, 1, rope]`.
        block_tables: int32 `[B, max_blocks]`, the blocks of each sequence.
        context_lens: int32 `[B]`, tokens of each sequence, the new ones included.
        mask: added to the scores, `[T, longest]`, with MASK_TYPE_SPEC.
        qseqlen: int32 `[B]`, number of new tokens of each sequence, with CALC_TYPE_SPEC.
        qk_descale: scale of a quantised cache; refused.
        pv_descale: scale of a quantised cache; refused.
        head_num: number of query heads.
        qk_scale: factor of the scores.
        kv_head_num: number of key heads: 1, or 0, which means 1.
        mask_type: type of the mask; MASK_TYPE_CAUSAL_MASK hides later tokens without a tensor.
        calc_type: form of the step.
        cache_mode: layout of the cache.

    Returns:
        `[T, heads, rank]`.

    Raises:
        GraphError: an argument is missing, or ATB has it and this function does not.
    """
    if qk_descale is not None or pv_descale is not None:
        raise GraphError("multi_latent_attention has no quantised caches (qk_descale, pv_descale)")
    if kv_head_num not in (0, 1):
        raise GraphError(f"multi_latent_attention has one key head, not {kv_head_num}")
    _known(CacheMode, cache_mode)
    masks = _checked_mask(mask_type, calc_type, qseqlen is not None)
    # The rotated part of the values is cut off again.
    cache = cat([ct_kv, k_rope], 3)
    out = paged_attention(
        cat([q_nope, q_rope], 2), k_cache=cache, v_cache=cache, mask=mask, mask_type=masks, block_table=block_tables,
        head_num=head_num, kv_head_num=1, q_lens=qseqlen, kv_lens=context_lens, qk_scale=qk_scale,
    )  # fmt: skip
    return out[:, :, : _rank(q_nope)]


def _checked_mask(mask_type: MaskType | str, calc_type: CalcType | str, has_lengths: bool) -> PagedMaskType:
    """Returns the mask of paged attention; GraphError if mask, form of the step and lengths do not go together."""
    mask, several = _known(MaskType, mask_type), _known(CalcType, calc_type) is CalcType.CALC_TYPE_SPEC
    if several != has_lengths:
        raise GraphError("CALC_TYPE_SPEC and qseqlen, the numbers of new tokens, go together")
    if several != (mask is not MaskType.UNDEFINED):
        raise GraphError("several new tokens need a mask, and single ones see their whole context without one")
    return PagedMaskType.SPEC if mask is MaskType.MASK_TYPE_SPEC else PagedMaskType.UNDEFINED


def _rank(q_nope: Tensor) -> int:
    rank = q_nope.shape[2] if q_nope.shape is not None and len(q_nope.shape) == 3 else None
    if not isinstance(rank, int):
        raise GraphError(
            "multi_latent_attention needs the shape of q_nope",
            hint='Declare it: Tensor("q_nope", (Dim("tokens"), heads, 512), dtype).',
        )
    return rank


def _known(kind: type[Enum], value: object) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(member.value for member in kind)
        raise GraphError(
            f"multi_latent_attention does not have {kind.__name__} {value}", hint=f"Known: {known}."
        ) from None
