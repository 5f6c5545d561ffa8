# SPDX-License-Identifier: Apache-2.0
"""Another process of a group: it loads its part and runs the steps that the first process tells it."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from atb_core.checkpoint import SilentProgress, open_checkpoint
from atb_core.errors import EngineError, error_text
from atb_core.features.step import Step
from atb_core.graph.arrays import HostArray
from atb_core.models.base.router import router_of
from atb_core.runner.kv_cache import CacheLayout, PagedCache, allocate
from atb_core.runner.model_loading import config_with_dtype, load_model
from atb_parallel.channel import Channel, Kind, Message, unpacked
from atb_parallel.inspection import findings
from atb_parallel.ops import Communicator
from atb_parallel.shards import part_of

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM


class Peer(Communicator):
    """A rank above 0 of a group."""

    def __init__(self, rank: int, world_size: int, channel: Channel) -> None:
        super().__init__(rank, world_size)
        self.channel = channel
        self.step = 0
        #: A message that came where a sum was expected: the first process gave the step up.
        self.pending: Message | None = None

    def divide(
        self, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader
    ) -> tuple[BaseConfig, WeightLoader]:
        """Returns configuration and loader of this process's part, and tells the first process what it found."""
        part = part_of(model_cls, config, loader, self.rank, self.world_size)
        self.channel.send_json(Kind.HELLO, findings(config, loader))
        return part

    def lead(self, model: CausalLM, cache: PagedCache) -> None:
        """Raises EngineError: only the first process leads."""
        raise EngineError(f"rank {self.rank} cannot lead")

    def close(self) -> None:
        """Closes the connection, by which the first process ends the group."""
        self.channel.close()

    def sum(self, part: HostArray, total: HostArray) -> None:
        """Sends `part` to the first process and receives the sum."""
        self.channel.send(Kind.PART, self.step, part.tobytes())
        message = self.channel.receive()
        if message.kind is not Kind.SUM or message.step != self.step or len(message.content) != total.nbytes:
            self.pending = message
            raise EngineError(f"step {self.step} was given up")
        total[...] = np.frombuffer(message.content, total.dtype).reshape(total.shape)

    def next_message(self) -> Message:
        """Returns the next message."""
        message, self.pending = self.pending, None
        return self.channel.receive() if message is None else message


def main() -> None:
    """Runs the process until the first one ends or closes the connection, whose number is the last argument."""
    channel = Channel(Connection(int(sys.argv[-1])))
    try:
        try:
            peer, model = _open(channel)
        except Exception as error:
            channel.send(Kind.ERROR, 0, error_text(error).encode())
            raise SystemExit(1) from None
        channel.send(Kind.READY)
        _follow(peer, model)
    except (EOFError, OSError):
        # The first process has ended, or needs this one no more.
        return


def _open(channel: Channel) -> tuple[Peer, CausalLM]:
    content = channel.receive().json()
    peer = Peer(content.pop("rank"), content.pop("world_size"), channel)
    checkpoint = open_checkpoint(content.pop("path"), SilentProgress())
    router = router_of(checkpoint)
    config = config_with_dtype(router.config, content.pop("dtype"))
    model = load_model(router, checkpoint, config, graph="python", progress=SilentProgress(), group=peer, **content)
    return peer, model


def _follow(peer: Peer, model: CausalLM) -> None:
    caches: Any = None
    while True:
        message = peer.next_message()
        if message.kind is Kind.CACHE:
            sizes = message.json()
            layout = CacheLayout.of(model, sizes["block_size"])
            caches = allocate(layout, sizes["num_blocks"], model.backend.allocate)
        elif message.kind is Kind.STEP:
            peer.step = message.step
            fields, arrays = unpacked(message.content)
            try:
                model.run_step(Step.of(kv_cache=caches, **arrays, **fields))
            except Exception as error:
                if peer.pending is None:
                    peer.channel.send(Kind.ERROR, peer.step, error_text(error).encode())
