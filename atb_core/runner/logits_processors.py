# SPDX-License-Identifier: Apache-2.0
"""Changes one row of logits before a token is chosen: bias, minimum length, penalties.

The order is `logit_bias`, `min_tokens`, `repetition_penalty`, `frequency_penalty`, `presence_penalty`: that of vLLM
and, for those that it has, of Hugging Face's `generate`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from atb_core.runner.request import Request

FloatRow = npt.NDArray[np.float32]


def process_logits(row: FloatRow, request: Request) -> FloatRow:
    """Returns a copy of the logits [vocab] as the request's parameters change them.

    Args:
        row: Logits of the model.
        request: Its parameters, end tokens, and tokens so far are used.
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
    return logits


def _indices(token_ids: Collection[int]) -> npt.NDArray[np.intp]:
    return np.fromiter(token_ids, dtype=np.intp, count=len(token_ids))


def _values(by_token: Mapping[int, float]) -> FloatRow:
    return np.fromiter(by_token.values(), dtype=np.float32, count=len(by_token))
