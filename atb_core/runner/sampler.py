# SPDX-License-Identifier: Apache-2.0
"""Chooses tokens from logits.

Everything here is numpy on one row at a time. A row's result is a function of that row and of its request alone, so it
never depends on the batch, and no thread pool is woken that would compete with the engine's.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atb_core.errors import EngineError, RequestError
from atb_core.graph.arrays import Array, to_numpy
from atb_core.runner.outputs import Logprob
from atb_core.runner.request import Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.token_mask import LogitsProcessor, TokenMask

FloatRow = npt.NDArray[np.float32]

# Number of the largest logits that top-p looks at before it sorts the whole vocabulary.
_NUCLEUS_GUESS = 4096
_DRAW_BLOCK = 512


class SampledToken(NamedTuple):
    """A chosen token and, if they were requested, log probabilities by token id."""

    token_id: int
    logprobs: dict[int, Logprob] | None


class Candidates(NamedTuple):
    """Tokens that survive the filters, and weights proportional to their probabilities (the largest is 1)."""

    token_ids: npt.NDArray[np.int64] | None
    weights: FloatRow


def sample(rows: Iterable[FloatRow], requests: Sequence[Request]) -> list[SampledToken | Exception]:
    """Returns one token for each request, or an EngineError if its row has no finite maximum (NaN or infinity).

    Args:
        rows: Logits [vocab] of each request; there may be more.
        requests: Their parameters, random generators and tokens so far are used.
    """
    return [_sample_row(row, request) for row, request in zip(rows, requests, strict=False)]


def as_float32(array: Array) -> npt.NDArray[np.float32]:
    """Returns logits or hidden states [rows, size] as float32 in host memory, without a copy where they are that."""
    return np.asarray(to_numpy(array), np.float32)


def prompt_logprobs(logits: Array, token_ids: Sequence[int], count: int) -> list[dict[int, Logprob]]:
    """Returns log probabilities for each position of a prompt, or of a part of one.

    Args:
        logits: [len(token_ids), vocab], as for `sample`.
        token_ids: For each row, the token that follows in the prompt.
        count: Number of most probable tokens to report besides that one.

    Raises:
        EngineError: A row has no finite maximum.
    """
    rows = as_float32(logits)
    for row in rows:
        _check_finite(row, int(row.argmax()))
    return [_logprobs(row, token_id, count) for row, token_id in zip(rows, token_ids, strict=True)]


def _sample_row(row: FloatRow, request: Request) -> SampledToken | Exception:
    try:
        best, params, scores = int(row.argmax()), request.params, row
        _check_finite(row, best)
        if request.processes_logits:
            scores = process_logits(row, request)
            best = int(scores.argmax())
        if request.rng is not None:
            best = _draw(filtered_candidates(scores, best, params), request.rng.random())
        return SampledToken(best, None if params.logprobs is None else _logprobs(row, best, params.logprobs))
    except Exception as error:
        return error


def _check_finite(row: FloatRow, best: int) -> None:
    # argmax returns the first NaN if there is one.
    if not math.isfinite(row.item(best)):
        raise EngineError(
            f"The model's logits contain {row[best]}, so no token can be chosen",
            hint="The weights may be damaged, or the model overflows in this dtype; try dtype='float32'.",
        )


def process_logits(row: FloatRow, request: Request) -> FloatRow:
    """Returns a copy of the logits [vocab] with bias, minimum length, penalties and mask of the request applied.

    The order is that of vLLM and, for those that it has, of Hugging Face's `generate`.
    """
    params = request.params
    logits: FloatRow = row.copy()
    if params.logit_bias is not None:
        logits[_indices(params.logit_bias)] += _values(params.logit_bias)
    if request.stop_ids and len(request) < request.min_total:
        logits[_indices(request.stop_ids)] = -np.inf
    if request.seen:
        seen = _indices(request.seen)
        values, penalty = logits[seen], np.float32(params.repetition_penalty)
        logits[seen] = np.where(values < 0, values * penalty, values / penalty)
    if request.counts:
        generated = _indices(request.counts)
        logits[generated] -= np.float32(params.frequency_penalty) * _values(request.counts)
        logits[generated] -= np.float32(params.presence_penalty)
    if isinstance(request.token_mask, LogitsProcessor):
        logits = _checked(request.token_mask.process(request.token_ids, logits), logits.shape)
    if request.token_mask is not None:
        _apply_mask(request.token_mask, logits)
    return logits


def _checked(processed: object, shape: tuple[int, ...]) -> FloatRow:
    logits = np.asarray(processed)
    if logits.dtype != np.float32 or logits.shape != shape:
        raise RequestError(f"A LogitsProcessor must return float32 {list(shape)}, not {logits.dtype} {[*logits.shape]}")
    if not math.isfinite(logits.item(int(logits.argmax()))):
        raise RequestError("The LogitsProcessor leaves no token to choose, or returned NaN")
    return logits


def _apply_mask(token_mask: TokenMask, logits: FloatRow) -> None:
    mask = token_mask.next_mask()
    if mask is None:
        return
    allowed = np.asarray(mask)
    if allowed.dtype != np.bool_ or allowed.shape != logits.shape:
        raise RequestError(
            f"A token mask must be bool [{len(logits)}], not {allowed.dtype} {list(allowed.shape)}",
            hint="It has an entry for each column of the logits, which the model may have padded.",
        )
    logits[~allowed] = -np.inf
    if not np.isfinite(logits.max()):
        raise RequestError("The token mask leaves no token to choose")


def _indices(token_ids: Collection[int]) -> npt.NDArray[np.intp]:
    return np.fromiter(token_ids, dtype=np.intp, count=len(token_ids))


def _values(by_token: Mapping[int, float]) -> FloatRow:
    return np.fromiter(by_token.values(), dtype=np.float32, count=len(by_token))


def filtered_candidates(scores: FloatRow, best: int, params: SamplingParams) -> Candidates:
    """Applies temperature, top-k, top-p and min-p to one row.

    Args:
        scores: [vocab] logits after the penalties.
        best: Index of the largest.
        params: Parameters whose temperature is above 0.

    Returns:
        The tokens left. `token_ids` is `None` when nothing was filtered: all tokens in the order of ids. Otherwise they
        are ordered from the most to the least probable, equal ones by id.
    """
    # The largest is 0 from here on, so a small temperature cannot overflow.
    scaled: FloatRow = (scores - scores[best]) / np.float32(params.effective_temperature)
    if 0 < params.top_k < len(scaled):
        ids = _largest(scaled, params.top_k)
        weights = np.exp(scaled[ids])
        if params.top_p < 1.0:
            kept = _nucleus(weights, params.top_p * float(weights.sum()))
            ids, weights = ids[:kept], weights[:kept]
    elif params.top_p < 1.0:
        ids = _nucleus_of_all(scaled, params.top_p)
        weights = np.exp(scaled[ids])
    elif params.min_p > 0.0:
        # A little more than min-p keeps; the exact cut follows.
        ids = _descending(scaled, np.flatnonzero(scaled >= np.float32(math.log(params.min_p) - 1e-3)))
        weights = np.exp(scaled[ids])
    else:
        return Candidates(None, np.exp(scaled))
    if params.min_p > 0.0:
        kept = max(1, int(np.count_nonzero(weights >= np.float32(params.min_p))))
        ids, weights = ids[:kept], weights[:kept]
    return Candidates(ids, weights)


def _largest(values: FloatRow, k: int) -> npt.NDArray[np.int64]:
    """Returns the indices of the `k` largest values and of those equal to the last, in descending order."""
    cut = len(values) - k
    return _descending(values, np.flatnonzero(values >= np.partition(values, cut)[cut]))


def _descending(values: FloatRow, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sorts `ids` from the largest value to the smallest, equal ones in ascending order.

    One sort of plain integers, value above id, is ten times as fast as a stable sort of indices.
    """
    # Adding 0 turns -0 into 0, which compares equal but has other bits.
    bits = (values[ids] + np.float32(0)).view(np.int32)
    ascending = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    keys = (~ascending).astype(np.int64) << 32 | ids
    keys.sort()
    order: npt.NDArray[np.int64] = keys & 0xFFFFFFFF
    return order


def _nucleus(weights: FloatRow, wanted: float) -> int:
    """Returns the number of leading tokens whose weights reach `wanted`; all if they do not reach it."""
    mass = np.cumsum(weights.astype(np.float64))
    return min(len(weights), int(np.searchsorted(mass, wanted, side="left")) + 1)


def _nucleus_of_all(scaled: FloatRow, top_p: float) -> npt.NDArray[np.int64]:
    """Applies top-p to a whole row; usually a few thousand of the largest are enough, and only they are sorted."""
    wanted = top_p * float(np.exp(scaled).sum())
    if len(scaled) > _NUCLEUS_GUESS:
        ids = _largest(scaled, _NUCLEUS_GUESS)
        kept = _nucleus(np.exp(scaled[ids]), wanted)
        if kept < len(ids):
            return ids[:kept]
    ids = _descending(scaled, np.arange(len(scaled)))
    return ids[: _nucleus(np.exp(scaled[ids]), wanted)]


def _draw(candidates: Candidates, uniform: float) -> int:
    """Returns the token whose share of the total weight contains the point `uniform`, in [0, 1)."""
    weights = candidates.weights
    # Blocks first, then tokens within one: adding up a whole vocabulary one by one takes five times as long.
    starts = np.arange(0, len(weights), _DRAW_BLOCK)
    blocks = np.cumsum(np.add.reduceat(weights, starts).astype(np.float64))
    point = uniform * blocks[-1]
    block = min(int(np.searchsorted(blocks, point, side="right")), int(np.searchsorted(blocks, blocks[-1])))
    start = int(starts[block])
    mass = np.cumsum(weights[start : start + _DRAW_BLOCK].astype(np.float64))
    rest = point - (blocks[block - 1] if block else 0.0)
    # Rounding can carry the point past the last token that has any weight; that token is meant then.
    inside = min(int(np.searchsorted(mass, rest, side="right")), int(np.searchsorted(mass, mass[-1])))
    position = start + inside
    return position if candidates.token_ids is None else int(candidates.token_ids[position])


def _logprobs(row: FloatRow, token_id: int, count: int) -> dict[int, Logprob]:
    """Returns log probabilities of one token, then of the `count` most probable ones in their order."""
    shifted = row.astype(np.float64)
    shifted -= shifted.max()
    normalizer = math.log(float(np.exp(shifted).sum()))
    result = {token_id: Logprob(float(shifted[token_id]) - normalizer, 1 + int((row > row[token_id]).sum()))}
    count = min(count, len(row))
    if count > 0:
        ids = _largest(row, count)[:count]
        rank, previous = 0, math.nan
        for place, (token, value) in enumerate(zip(ids.tolist(), row[ids].tolist(), strict=True), start=1):
            rank = rank if value == previous else place
            previous = value
            result.setdefault(token, Logprob(float(shifted[token]) - normalizer, rank))
    return result
