# SPDX-License-Identifier: Apache-2.0
"""Another process of a group: it loads its part and runs the steps that the first process tells it."""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from atb_core.checkpoint import SilentProgress, open_checkpoint
from atb_core.errors import AtbError, EngineError, RequestError, error_text
from atb_core.features.adapters import Adapter, adapter_manager
from atb_core.features.step import Step
from atb_core.graph.arrays import HostArray
from atb_core.models.base.router import router_of
from atb_core.plugin_errors import plugin_errors
from atb_core.runner.kv_cache import PagedCache, allocate
from atb_core.runner.model_loading import config_with_dtype, load_model
from atb_parallel.channel import Channel, Kind, Message, unpacked
from atb_parallel.inspection import findings
from atb_parallel.ops import Communicator
from atb_parallel.shards import part_of

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM


_SECONDS_TO_NOTICE = 2.0


class Peer(Communicator):
    """A rank above 0 of a group."""

    #: Rank 0 alone knows why a group has ended.
    failure: str | None = None

    def __init__(self, rank: int, world_size: int, domain: str | None, channel: Channel) -> None:
        super().__init__(rank, world_size, domain)
        self.channel = channel
        self.step = 0
        #: A message that came where a result was expected: the first process gave the step up.
        self.pending: Message | None = None

    def divide(
        self, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader
    ) -> tuple[BaseConfig, WeightLoader]:
        """Returns configuration and loader of this process's part, and tells the first process what it found."""
        part = part_of(self, model_cls, config, loader)
        self.channel.send_json(Kind.HELLO, findings(config, loader))
        self.linears = part.shares
        return part.config, part.loader

    def lead(self, model: CausalLM, cache: PagedCache) -> None:
        """Raises EngineError: only the first process leads."""
        raise EngineError(f"rank {self.rank} cannot lead")

    def close(self) -> None:
        """Closes the connection, by which the first process ends the group."""
        self.channel.close()

    def sum(self, part: HostArray, total: HostArray) -> None:
        """Sends `part` to the first process and receives the sum."""
        self._exchange(part, total)

    def gather(self, part: HostArray, whole: HostArray, to_all: bool = True) -> None:
        """Sends `part` to the first process and, if `to_all`, receives those of all."""
        if to_all:
            self._exchange(part, whole)
        else:
            self.channel.send(Kind.PART, self.step, part.tobytes())
            whole[...] = 0

    def _exchange(self, part: HostArray, result: HostArray) -> None:
        self.channel.send(Kind.PART, self.step, part.tobytes())
        message = self.channel.receive()
        if message.kind is not Kind.WHOLE or message.step != self.step or len(message.content) != result.nbytes:
            self.pending = message
            raise EngineError(f"step {self.step} was given up")
        result[...] = np.frombuffer(message.content, result.dtype).reshape(result.shape)

    def next_message(self) -> Message:
        """Returns the next message."""
        message, self.pending = self.pending, None
        return self.channel.receive() if message is None else message


def main() -> None:
    """Runs the process until the first one ends or closes the connection, whose number is the last argument."""
    sys.exit(1 if serve(Channel(Connection(int(sys.argv[-1])))) else 0)


def serve(channel: Channel, name: str = "a process that shares a model") -> str | None:
    """Loads a part of a model and runs the steps of rank 0 until it ends.

    Args:
        channel: the connection to rank 0.
        name: what messages call this process.

    Returns:
        Why the group or this process failed, empty if rank 0 closed it; `None` if rank 0 left without a word.
    """
    has_ended = threading.Event()
    threading.Thread(target=_leave, args=(channel, name, has_ended), name="atb-parallel", daemon=True).start()
    try:
        message = channel.receive()
        if message.kind is Kind.END:
            return message.text()
        try:
            peer, model = _open(channel, message.json())
        except Exception as error:
            return _told(channel, 0, error)
        channel.send(Kind.READY)
        return _follow(peer, model)
    except (EOFError, OSError):
        return None
    finally:
        has_ended.set()


def _leave(channel: Channel, name: str, has_ended: threading.Event) -> None:
    """Ends this process if rank 0 has left and what runs, such as loading or a device's sum, does not notice."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLRDHUP)
    poller.poll()
    if not has_ended.wait(_SECONDS_TO_NOTICE):
        print(f"{name} ends: rank 0 ended or cannot be reached any more", file=sys.stderr, flush=True)
        os._exit(1)


def _told(channel: Channel, step: int, error: Exception) -> str:
    """Tells rank 0 why this process failed in a step, and returns it."""
    cause, hint = (error.message, error.hint) if isinstance(error, AtbError) else (error_text(error), None)
    channel.send(Kind.ERROR, step, json.dumps([cause, hint]).encode())
    return cause


def _open(channel: Channel, content: dict[str, Any]) -> tuple[Peer, CausalLM]:
    peer = Peer(content.pop("rank"), content.pop("world_size"), content.pop("domain"), channel)
    checkpoint = open_checkpoint(content.pop("path"), SilentProgress())
    router = router_of(checkpoint)
    config = config_with_dtype(router.config, content.pop("dtype"))
    model = load_model(router, checkpoint, config, graph="python", progress=SilentProgress(), group=peer, **content)
    return peer, model


def _follow(peer: Peer, model: CausalLM) -> str:
    block_size, specs = 0, model.kv_cache_specs
    # By the numbers by which rank 0 knows them, too; the runner's cache has 0.
    caches: dict[int, Any] = {}
    adapters: dict[int, Adapter] = {}
    while True:
        message = peer.next_message()
        if message.kind is Kind.END:
            return message.text()
        if message.kind is Kind.READS:
            peer.channel.send(Kind.READS, message.step)
        elif message.kind is Kind.CACHE:
            sizes = message.json()
            block_size = sizes["block_size"]
            caches[0] = allocate(specs, sizes["num_blocks"], block_size, model.backend.allocate)
            model.lora = adapter_manager()(model, sizes["max_loras"], sizes["max_lora_rank"])
        elif message.kind is Kind.ADAPTER:
            fields, arrays = unpacked(message.content)
            adapters[fields["number"]] = model.lora.take(arrays)
        elif message.kind is Kind.STEP:
            peer.step = message.step
            fields, arrays = unpacked(message.content)
            for number in fields.pop("unused"):
                adapters.pop(number, None)
                caches.pop(number, None)
            named = [adapters.get(number) for number in fields.pop("adapters")]
            number, blocks = fields.pop("cache")
            try:
                if number not in caches:
                    caches[number] = allocate(specs, blocks, block_size, model.backend.allocate)
                step = Step.of(kv_cache=caches[number], adapter_ids=named or None, **arrays, **fields)
                with plugin_errors():
                    model.run_step(step)
            except Exception as error:
                refused_by_all = isinstance(error, RequestError)
                if peer.pending is None and not (refused_by_all and peer.domain is not None):
                    _told(peer.channel, peer.step, error)
                if peer.domain is not None and not refused_by_all:
                    # Devices that wait for this one learn of it by its end alone, and rank 0 by that of the connection.
                    print(f"rank {peer.rank}: {error_text(error)}", file=sys.stderr, flush=True)
                    return error_text(error)
            if peer.domain is not None:
                peer.channel.send(Kind.DONE, peer.step)
