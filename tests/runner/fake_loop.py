# SPDX-License-Identifier: Apache-2.0
"""An engine loop over a fake model."""

from __future__ import annotations

import dataclasses

from runner.fake_model import VOCAB, FakeModel

from atb_core.runner.block_manager import BlockManager
from atb_core.runner.engine_loop import EngineLoop
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.pace import Pace
from atb_core.runner.request import Call, Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Scheduler

MAX_LEN = 64


class FixedPace(Pace):
    """Lets a step have a given number of prompt tokens, whatever it costs."""

    def __init__(self, chunk_size: int, sliced_size: int) -> None:
        super().__init__()
        self._given, self._sliced = chunk_size, sliced_size

    def chunk_size(self, num_decoding: int, context: int) -> int:
        return self._given

    def sliced_size(self, num_decoding: int, context: int) -> int:
        return self._sliced


@dataclasses.dataclass
class Setup:
    model: FakeModel
    blocks: BlockManager
    loop: EngineLoop


def make(
    num_blocks: int = 64,
    block_size: int = 4,
    max_batch: int = 8,
    max_prefill: int = 40,
    mixes: bool = False,
    chunk_size: int | None = None,
    sliced_size: int | None = None,
) -> Setup:
    model = FakeModel(num_blocks, block_size)
    blocks = BlockManager(num_blocks, block_size)
    slices = sliced_size is not None
    scheduler = Scheduler(
        blocks, max_batch, max_prefill, can_slice=lambda: slices, can_mix=lambda: mixes, shares_prefixes=True
    )
    sizes = {"max_model_len": MAX_LEN, "vocab_size": VOCAB}
    loop = EngineLoop(model.forward, scheduler, [], start=model.start, **sizes)
    if chunk_size is not None:
        loop.pace = FixedPace(chunk_size, sliced_size or 0)
    return Setup(model, blocks, loop)


def make_request(index: int, prompt: list[int], params: SamplingParams, stop_ids: tuple[int, ...] = ()) -> Request:
    total = min(MAX_LEN, len(prompt) + (params.max_tokens or MAX_LEN))
    result = RequestOutput(str(index), None, prompt, [], finished=False)
    return Request(result, index, params, total, frozenset(stop_ids))


def run(setup: Setup, requests: list[Request]) -> list[RequestOutput]:
    for _ in setup.loop.chunks(Call(requests, streams=True)):
        pass
    return [request.result for request in requests]
