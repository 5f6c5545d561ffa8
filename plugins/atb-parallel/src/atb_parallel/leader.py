# SPDX-License-Identifier: Apache-2.0
"""The first process of a group: it starts the others, tells them each step, and sums what they compute."""

from __future__ import annotations

import _thread
import itertools
import json
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from atb_core.errors import AtbError, ConfigError, EngineError, RequestError
from atb_core.graph.arrays import HostArray, to_numpy
from atb_core.graph.dim import shape_text
from atb_parallel.channel import Kind, Message, packed
from atb_parallel.inspection import check_same, findings
from atb_parallel.launched import joined
from atb_parallel.ops import Communicator
from atb_parallel.processes import Follower, Members, Started, loss_of
from atb_parallel.shards import divided_config, part_of

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.features.adapters import AdapterManager
    from atb_core.features.step import Step
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.runner.kv_cache import PagedCache

_MOST_PROCESSES = 64
# What the buffers of a connection hold at least.
_BYTES_UNREAD = 1 << 15
_SECONDS_TO_FINISH = 30.0
_numbers = itertools.count()
_ARRAYS = ("input_ids", "position_ids", "block_tables", "slots", "input_lengths", "lm_head_indices", "q_lens")
T = TypeVar("T")


class Leader(Communicator):
    """Rank 0 of a group. It holds no model, so that a model that nobody refers to ends the group."""

    def __init__(self, followers: Iterable[Follower], world_size: int, domain: str | None) -> None:
        super().__init__(0, world_size, domain)
        self._members = Members()
        weakref.finalize(self, self._members.end)
        self._followers = self._members.followers
        self._followers.extend(followers)
        self._step = 0
        self._cache: Any = None
        self._manager: AdapterManager | None = None
        self._numbers = itertools.count(1)
        # The others know adapters, and caches beside the runner's, by numbers.
        self._sent: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._others: dict[int, int] = {}
        self._unused: list[int] = []

    @property
    def failure(self) -> str | None:
        """Why the other processes have ended; `None` if they have not, or were not needed any more."""
        return self._members.failure

    def open(self, path: Path, options: Mapping[str, Any]) -> None:
        """Tells the others what to load."""
        for each in self._followers:
            group = {"rank": each.rank, "world_size": self.world_size, "domain": self.domain}
            content = {**group, "path": str(path), **options}
            self._send(each, Kind.OPEN, json.dumps(content).encode())

    def divide(
        self, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader
    ) -> tuple[BaseConfig, WeightLoader]:
        """Returns configuration and loader of this process's part, once all have found the same files and packages."""
        part = part_of(self, model_cls, config, loader)
        self.linears = part.shares
        own = findings(config, loader)
        for each in self._followers:
            check_same(own, self._receive(each, Kind.HELLO).json(), each.rank)
        part.loader.before_read = self._check_loading
        return part.config, part.loader

    def _check_loading(self) -> None:
        """Raises EngineError if another process has ended or failed; messages that are expected later are kept."""
        for each in self._followers:
            while self._talk(each, partial(each.channel.has_message, 0)):
                message = self._talk(each, each.channel.receive)
                if message.kind is Kind.ERROR:
                    raise _error_of(each, message)
                each.early.append(message)

    def lead(self, model: CausalLM, cache: PagedCache) -> None:
        """Makes the others allocate such a cache, and run each step of `model` on it."""
        with _closed_on_error(self):
            _check_output(model)
        for each in self._followers:
            self._receive(each, Kind.READY)
        self._cache, self._manager = cache, model.lora
        sizes = {
            "block_size": cache.blocks.block_size, "num_blocks": cache.num_blocks,
            "max_loras": model.lora.max_loras, "max_lora_rank": model.lora.max_lora_rank,
        }  # fmt: skip
        for each in self._followers:
            self._send(each, Kind.CACHE, json.dumps(sizes).encode())
        self._members.watch()
        model.before_step = self._tell

    def close(self) -> None:
        """Ends the other processes; may be called again."""
        self._members.end()

    def _tell(self, step: Step) -> None:
        if step.extras.keys() - {"hidden_states"}:
            raise RequestError(f"several processes cannot share the arguments {', '.join(sorted(step.extras))}")
        if self.domain is not None:
            self._await_step()
        adapters = [self._number_of(each) for each in step.adapter_ids or ()]
        unused = [self._unused.pop() for _ in range(len(self._unused))]
        fields = {
            "is_prefill": step.is_prefill, "max_seq_len": step.max_seq_len, "adapters": adapters, "unused": unused,
            "cache": self._cache_of(step.kv_cache), **step.extras,
        }  # fmt: skip
        given = {name: getattr(step, name) for name in _ARRAYS}
        content = packed(fields, {name: to_numpy(value) for name, value in given.items() if value is not None})
        self._step += 1
        for each in self._followers:
            self._send_long(each, Kind.STEP, content)

    def _await_step(self) -> None:
        """Waits until the others have ended the step before this one: a device takes whatever comes next as its part.

        The others may have failed in it, or wait in vain for this process, which was interrupted.
        """
        for each in self._followers if self._step else ():
            if not self._talk(each, partial(each.channel.has_message, _SECONDS_TO_FINISH)):
                self._members.end(f"rank {each.rank} does not end the step that rank 0 has ended")
            self._receive(each, Kind.DONE)

    def _cache_of(self, caches: Any) -> list[int]:
        """Returns the number by which the others know a cache, 0 for the runner's, and its number of blocks.

        The others allocate one like it, and keep it as long as there is this one.
        """
        if any(caches is each for each in (self._cache.caches, vars(self._cache).get("tensors"))):
            return [0, self._cache.num_blocks]
        keys = caches[0][0]
        if self._cache.others.get(id(keys)) is not keys:
            raise RequestError(
                "steps of a model that several processes share need a cache that its runner has allocated",
                hint="Give runner.kv_cache, or what runner.allocate_kv_cache returns, as kv_cache.",
            )
        number = self._others.get(id(keys))
        if number is None:
            number = self._others[id(keys)] = next(self._numbers)
            for forget, what in ((self._unused.append, number), (self._others.pop, id(keys))):
                weakref.finalize(keys, forget, what).atexit = False
        return [number, len(keys)]

    def _number_of(self, given: Any) -> int | None:
        """Returns the number by which the others know an adapter, after sending it to them if they do not yet."""
        assert self._manager is not None
        adapter = self._manager.find(given)
        if adapter is None:
            return None
        if adapter not in self._sent:
            number = next(self._numbers)
            for each in self._followers:
                share = packed({"number": number}, self._manager.share(adapter, each.rank))
                self._send_long(each, Kind.ADAPTER, share)
            self._sent[adapter] = number
            # The others keep it as long as requests or the manager do here; the next step tells them.
            weakref.finalize(adapter, self._unused.append, number).atexit = False
        return self._sent[adapter]

    def sum(self, part: HostArray, total: HostArray) -> None:
        """Adds the parts of the others to `part`, in their order, and tells them the sum."""
        with self._told(total):
            result = part.astype(np.float32)
            for other in self._parts(part):
                result += other.astype(np.float32)
            total[...] = result

    def gather(self, part: HostArray, whole: HostArray, to_all: bool = True) -> None:
        """Puts `part` and those of the others into `whole`, and tells them if `to_all`."""
        with self._told(whole if to_all else None):
            for rank, each in enumerate((part, *self._parts(part))):
                whole[rank] = each

    def _parts(self, part: HostArray) -> Iterator[HostArray]:
        for each in self._followers:
            content = self._receive(each, Kind.PART).content
            if len(content) != part.nbytes:
                raise EngineError(f"rank {each.rank} computes another step than rank 0")
            yield np.frombuffer(content, part.dtype).reshape(part.shape)

    @contextmanager
    def _told(self, result: HostArray | None) -> Iterator[None]:
        """Sends `result`, if there is one, to the others in the end."""
        try:
            yield
            if result is not None:
                content = result.tobytes()
                for each in self._followers:
                    self._send(each, Kind.WHOLE, content)
        except KeyboardInterrupt:
            # The engine makes an error of every exception; the interrupt comes again behind it.
            _thread.interrupt_main()
            raise

    def _send(self, follower: Follower, kind: Kind, content: bytes = b"") -> None:
        self._talk(follower, lambda: follower.channel.send(kind, self._step, content))

    def _send_long(self, follower: Follower, kind: Kind, content: bytes) -> None:
        """Sends what may be more than a connection holds: the process must read, or both would wait for ever.

        It may still send its part of a step that rank 0 gave up, which is dropped here.
        """
        follower.unread += len(content)
        if follower.unread > _BYTES_UNREAD:
            self._send(follower, Kind.READS)
            while self._talk(follower, follower.channel.receive).kind is not Kind.READS:
                pass
            follower.unread = 0
        self._send(follower, kind, content)

    def _receive(self, follower: Follower, kind: Kind) -> Message:
        """Returns the next message of the current step; what is left of an earlier step, which ended early, is dropped.

        An error after a step's last sum is dropped too: then the cache has been written, and only rank 0 samples.
        """
        while True:
            early = follower.early
            message = early.popleft() if early else self._talk(follower, follower.channel.receive)
            if message.step < self._step:
                continue
            # It has read all that came before the step.
            follower.unread = 0
            if message.kind is Kind.ERROR:
                raise _error_of(follower, message)
            if message.kind is not kind:
                raise EngineError(f"rank {follower.rank} sent {message.kind.name} where {kind.name} was expected")
            return message

    def _talk(self, follower: Follower, action: Callable[[], T]) -> T:
        """Returns the result of an exchange; if the other process ended, ends all and says how it ended."""
        if not self._members.have_ended:
            try:
                return action()
            except (EOFError, OSError):
                self._members.end(loss_of(follower))
        # Another thread may be about to end them.
        self._members.end()
        failure = self._members.failure or "the group of processes was closed"
        raise EngineError(failure, hint="Open the model again.")


def _error_of(follower: Follower, message: Message) -> EngineError:
    cause, hint = message.json()
    return EngineError(f"rank {follower.rank}: {cause}", hint=hint)


def _check_output(model: CausalLM) -> None:
    """Raises ConfigError if the model gives no row for each token: then it gathers what its layers have gathered."""
    outputs = model.variants.get("prefill").engine.network.outputs
    shape = next(each.shape for each in outputs if each.name == "model_out")
    if shape is not None and len(shape) != 2:
        raise ConfigError(
            f"the model_out of {type(model).__name__} is {shape_text(shape)} in several processes, not a row of logits "
            "for each token",
            hint="Layers give whole results: return that of lm_head, without all_gather.",
        )


@contextmanager
def _closed_on_error(leader: Leader) -> Iterator[None]:
    try:
        yield
    except BaseException:
        leader.close()
        raise


def _domain() -> str:
    """Returns a name for the communicator of a group that no other group of the machine has: a number, as LCCL asks."""
    return str((os.getpid() + 997 * next(_numbers)) % 65536)


def start_group(
    size: int, checkpoint: Checkpoint, config: BaseConfig, options: Mapping[str, Any], *, launched: bool = False
) -> Leader:
    """Starts the other processes of a group of `size`, which open the checkpoint too, and returns the first one.

    Args:
        size: number of processes with this one.
        checkpoint: what all open.
        config: its configuration, in the dtype that runs.
        options: those of `load_model` that every process has.
        launched: another program has started the processes.

    Raises:
        AtbError: the model cannot be divided, or a process does not start.
    """
    if size > _MOST_PROCESSES:
        raise RequestError(f"tensor_parallel_size={size}: a group has at most {_MOST_PROCESSES} processes")
    divided_config(config, size)
    domain = _domain() if options["backend"] in ("atb", "atb-sim") else None
    leader = Leader(joined(size) if launched else map(Started, range(1, size)), size, domain)
    with _closed_on_error(leader):
        try:
            leader.open(checkpoint.path, options)
        except AtbError as error:
            raise EngineError(f"the other processes did not start: {error}") from error
    return leader
