# SPDX-License-Identifier: Apache-2.0
"""The first process of a group: it starts the others, tells them each step, and sums what they compute."""

from __future__ import annotations

import _thread
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from atb_core.errors import AtbError, EngineError, RequestError
from atb_core.graph.arrays import HostArray, to_numpy
from atb_parallel.channel import Channel, Kind, Message, packed
from atb_parallel.inspection import check_same, findings
from atb_parallel.ops import Communicator
from atb_parallel.shards import divided_config, part_of

if TYPE_CHECKING:
    from atb_core.checkpoint import WeightLoader
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.features.step import Step
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.runner.kv_cache import PagedCache

_MOST_PROCESSES = 64
_SECONDS_TO_END = 2.0
_ARRAYS = ("input_ids", "position_ids", "block_tables", "slots", "input_lengths", "lm_head_indices", "q_lens")
# With this process's search path, so that both import the same; the path stands in the arguments.
_START = "import sys; sys.path[:] = sys.argv[1].split('\\n'); from atb_parallel.follower import main; main()"
T = TypeVar("T")


class Follower:
    """Another process of the group, seen from the first one."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        ours, theirs = Pipe()
        with theirs:
            paths = "\n".join(map(os.path.abspath, sys.path))
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, paths, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # Ctrl-C in a terminal is sent to the whole process group; only the first process must handle it.
                start_new_session=True,
            )
        self.channel = Channel(ours)

    def end(self) -> None:
        """Ends the process, which ends by itself once its connection is closed."""
        self.channel.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def death(self) -> str:
        """Returns how the process ended."""
        try:
            code = self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            return f"rank {self.rank} (process {self.process.pid}) closed its connection"
        return f"rank {self.rank} (process {self.process.pid}) ended with exit code {code}"


class Leader(Communicator):
    """Rank 0 of a group. It holds no model, so that a model that nobody refers to ends the group."""

    def __init__(self, world_size: int) -> None:
        super().__init__(0, world_size)
        self._followers: list[Follower] = []
        self._end = weakref.finalize(self, _end_all, self._followers)
        for rank in range(1, world_size):
            self._followers.append(Follower(rank))
        self._step = 0
        self._failure: str | None = None
        self._cache: Any = None

    def open(self, path: Path, options: Mapping[str, Any]) -> None:
        """Tells the others what to load."""
        for each in self._followers:
            content = {"rank": each.rank, "world_size": self.world_size, "path": str(path), **options}
            self._send(each, Kind.OPEN, json.dumps(content).encode())

    def divide(
        self, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader
    ) -> tuple[BaseConfig, WeightLoader]:
        """Returns configuration and loader of this process's part, once all have found the same files and packages."""
        part = part_of(model_cls, config, loader, 0, self.world_size)
        own = findings(config, loader)
        for each in self._followers:
            check_same(own, self._receive(each, Kind.HELLO).json(), each.rank)
        return part

    def lead(self, model: CausalLM, cache: PagedCache) -> None:
        """Makes the others allocate such a cache, and run each step of `model` on it."""
        for each in self._followers:
            self._receive(each, Kind.READY)
        sizes = json.dumps({"block_size": cache.layout.block_size, "num_blocks": cache.num_blocks}).encode()
        for each in self._followers:
            self._send(each, Kind.CACHE, sizes)
        self._cache = cache
        model.before_step = self._tell

    def close(self) -> None:
        """Ends the other processes; may be called again."""
        self._failure = self._failure or "the group of processes was closed"
        self._end()

    def _tell(self, step: Step) -> None:
        if all(step.kv_cache is not each for each in (self._cache.caches, vars(self._cache).get("tensors"))):
            raise RequestError(
                "steps of a model that several processes share need the runner's own cache",
                hint="Give runner.kv_cache as kv_cache.",
            )
        if step.extras.keys() - {"hidden_states"}:
            raise RequestError(f"several processes cannot share the arguments {', '.join(sorted(step.extras))}")
        fields = {"is_prefill": step.is_prefill, "max_seq_len": step.max_seq_len, **step.extras}
        given = {name: getattr(step, name) for name in _ARRAYS}
        content = packed(fields, {name: to_numpy(value) for name, value in given.items() if value is not None})
        self._step += 1
        for each in self._followers:
            self._send(each, Kind.STEP, content)

    def sum(self, part: HostArray, total: HostArray) -> None:
        """Adds the parts of the others to `part`, in their order, and tells them the sum."""
        try:
            result = part.astype(np.float32)
            for each in self._followers:
                content = self._receive(each, Kind.PART).content
                if len(content) != part.nbytes:
                    raise EngineError(f"rank {each.rank} computes another step than rank 0")
                result += np.frombuffer(content, part.dtype).reshape(part.shape).astype(np.float32)
            total[...] = result
            summed = total.tobytes()
            for each in self._followers:
                self._send(each, Kind.SUM, summed)
        except KeyboardInterrupt:
            # The engine makes an error of every exception; the interrupt comes again behind it.
            _thread.interrupt_main()
            raise

    def _send(self, follower: Follower, kind: Kind, content: bytes) -> None:
        self._talk(follower, lambda: follower.channel.send(kind, self._step, content))

    def _receive(self, follower: Follower, kind: Kind) -> Message:
        """Returns the next message of the current step; what is left of an earlier step, which ended early, is dropped.

        An error after a step's last sum is dropped too: then the cache has been written, and only rank 0 samples.
        """
        while True:
            message = self._talk(follower, follower.channel.receive)
            if message.step < self._step:
                continue
            if message.kind is Kind.ERROR:
                raise EngineError(f"rank {follower.rank}: {bytes(message.content).decode(errors='replace')}")
            if message.kind is not kind:
                raise EngineError(f"rank {follower.rank} sent {message.kind.name} where {kind.name} was expected")
            return message

    def _talk(self, follower: Follower, action: Callable[[], T]) -> T:
        """Returns the result of an exchange; if the other process ended, ends all and says how it ended."""
        if self._failure is None:
            try:
                return action()
            except (EOFError, OSError):
                self._failure = f"{follower.death()}, so the model is gone"
                self._end()
        raise EngineError(self._failure, hint="Open the model again.")


def _end_all(followers: list[Follower]) -> None:
    for each in followers:
        with suppress(OSError):
            each.channel.close()
    for each in followers:
        each.end()


@contextmanager
def _closed_on_error(leader: Leader) -> Iterator[None]:
    try:
        yield
    except BaseException:
        leader.close()
        raise


def start_group(size: int, checkpoint: Checkpoint, config: BaseConfig, options: Mapping[str, Any]) -> Leader:
    """Starts the other processes of a group of `size`, which open the checkpoint too, and returns the first one.

    Raises:
        AtbError: the model cannot be divided, or a process does not start.
    """
    if size > _MOST_PROCESSES:
        raise RequestError(f"tensor_parallel_size={size}: a group has at most {_MOST_PROCESSES} processes")
    divided_config(config, size)
    leader = Leader(size)
    with _closed_on_error(leader):
        try:
            leader.open(checkpoint.path, options)
        except AtbError as error:
            raise EngineError(f"the other processes did not start: {error}") from error
    return leader
