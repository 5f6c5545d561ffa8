# SPDX-License-Identifier: Apache-2.0
"""Random load on a real scheduler, in simulated time, on a model whose tokens depend on context and adapter alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from atb_core.errors import EngineError
from atb_core.features.step import Step
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.engine_loop import EngineLoop
from atb_core.runner.outputs import RequestOutput
from atb_core.runner.request import Call, Request
from atb_core.runner.sampler import sample
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Scheduler
from atb_speculation.ngram import NgramConfig, NgramDrafter

#: Few, so that texts repeat themselves: prompts share prefixes, and guesses are right now and then.
VOCAB = 12
MAX_LEN = 56
LOST = "the device was lost"
_MODULUS = 1_000_003
_POWERS = np.array([pow(31, power, _MODULUS) for power in range(MAX_LEN)], np.int64)
# Of a step, and of one token in it.
_SECONDS, _SECONDS_OF_TOKEN = 0.05, 0.002


@dataclass(frozen=True)
class FakeAdapter:
    """An adapter: the same content under another name gives the same."""

    content: int

    @property
    def digest(self) -> bytes:
        return bytes([self.content])


def logits_of(tokens: np.ndarray, content: int) -> np.ndarray:
    """Returns logits `[VOCAB]` after a context, with an adapter of some content, 0 for none."""
    values = tokens * 17 + np.arange(len(tokens)) * 7 + 1 + content * 101
    state = int((values * _POWERS[: len(tokens)][::-1]).sum() % _MODULUS)
    # Half of the contexts are told apart by their last tokens alone, as in texts.
    if state % 2:
        state = int(tokens[-1]) * 5 + content
    return ((state + 1) * np.arange(1, VOCAB + 1) * 7919 % _MODULUS / _MODULUS * 12).astype(np.float32)


class CachedModel:
    """Writes tokens, positions and adapters to a paged cache, and knows of contexts what it reads there."""

    def __init__(self, num_blocks: int, block_size: int, max_adapters: int) -> None:
        self.cache = np.full((num_blocks * block_size, 3), -1, np.int64)
        self.block_size, self.max_adapters = block_size, max_adapters
        self.seconds = 0.0
        self.fails = False

    def forward(self, step: Step) -> np.ndarray:
        if self.fails:
            self.fails = False
            raise EngineError(LOST)
        count = len(step.input_lengths)
        adapters = step.adapter_ids or [None] * count
        assert len({each for each in adapters if each is not None}) <= self.max_adapters
        contents = [0 if each is None else each.content for each in adapters]
        new = step.q_lens if step.q_lens is not None else step.input_lengths if step.is_prefill else np.ones(count, int)
        assert len(np.unique(step.slots)) == len(step.slots), "two tokens were given the same slot"
        ends = np.cumsum(new)
        self.cache[step.slots] = np.stack([step.input_ids, step.position_ids, np.repeat(contents, new)], axis=1)
        rows = ends - 1 if step.lm_head_indices is None else step.lm_head_indices
        owners = np.searchsorted(ends, rows, side="right")
        self.seconds += _SECONDS + _SECONDS_OF_TOKEN * len(step.input_ids)
        return np.stack([
            self._row(step.block_tables[owner], int(step.input_lengths[owner] - ends[owner] + row + 1), contents[owner])
            for row, owner in zip(rows, owners, strict=True)
        ])  # fmt: skip

    def _row(self, table: np.ndarray, length: int, content: int) -> np.ndarray:
        places = np.arange(length)
        found = self.cache[table[places // self.block_size] * self.block_size + places % self.block_size]
        assert (found[:, 1] == places).all(), "the cache holds other positions here"
        assert (found[:, 2] == content).all(), "the cache holds what another adapter computed"
        return logits_of(found[:, 0], content)


@dataclass(eq=False)
class Client:
    """Whoever made a call: what it asked for, and when it gives up."""

    call: Call
    given: list[Request]
    deadline: float
    seen: list[list[int]] = field(default_factory=list)
    is_checked: bool = False


class World:
    """Clients, adapters and the loop; every action leaves all of it consistent."""

    def __init__(self, num_blocks: int = 40, block_size: int = 4, mixes: bool = True, guesses: bool = True) -> None:
        self.model = CachedModel(num_blocks, block_size, max_adapters=2)
        self.blocks = BlockManager(num_blocks, block_size)
        config = NgramConfig(prompt_lookup_min=1, num_speculative_tokens=4)
        scheduler = Scheduler(
            self.blocks, 6, 24, can_mix=lambda: mixes, shares_prefixes=True, max_adapters=2,
            make_drafter=(lambda: NgramDrafter(config)) if guesses and mixes else None,
        )  # fmt: skip
        self.loop = EngineLoop(self.model.forward, scheduler, [], max_model_len=MAX_LEN, vocab_size=VOCAB)
        self.adapters: dict[str, FakeAdapter] = {}
        self.clients: list[Client] = []
        self.idle = 0.0
        self.counts: Counter[str] = Counter()

    @property
    def now(self) -> float:
        """Returns the simulated time in seconds."""
        return self.idle + self.model.seconds

    def load(self, name: str, content: int) -> None:
        """Loads an adapter, or replaces one that requests may run with."""
        self.adapters[name] = FakeAdapter(content)

    def unload(self, name: str) -> None:
        self.adapters.pop(name, None)

    def submit(
        self, prompt: Sequence[int], params: SamplingParams, adapter: str | None, streams: bool, patience: float
    ) -> None:
        """Makes a call for all completions of a prompt, by a client that gives up after some seconds."""
        given = requests(prompt, params, self.adapters.get(adapter or ""))
        call = Call(given, streams)
        self.clients.append(Client(call, given, self.now + patience))
        self.loop.submit(call)
        self.counts["requests"] += len(given)

    def leave(self, number: int) -> None:
        if self.clients:
            client = self.clients[number % len(self.clients)]
            self.loop.leave(client.call)
            self.counts["left"] += 1
            self.check()

    def step(self) -> bool:
        """Runs one step; returns false if no request can run, which is only while no caller reads."""
        late = [each for each in self.clients if each.deadline <= self.now and not each.call.is_over]
        for client in late:
            self.loop.leave(client.call)
        self.counts["late"] += len(late)
        could_run = any(each.call.can_run for each in self.clients)
        ran = self.loop._step()
        assert ran or not could_run, "requests wait for ever"
        self.counts["steps"] += ran
        self.check()
        return ran

    def read(self, number: int) -> None:
        """Lets a client take what there is for it."""
        if self.clients:
            self.clients[number % len(self.clients)].call.chunks.clear()

    def finish(self) -> None:
        """Runs until nothing is left to do."""
        while any(not each.call.is_over and not each.call.left for each in self.clients):
            for number in range(len(self.clients)):
                self.read(number)
            self.step()
        assert self.blocks.num_free == self.blocks.num_blocks
        assert not self.loop.calls

    def check(self) -> None:
        """Compares owners of blocks with the tables of requests, and ended requests with fresh runs."""
        blocks, running = self.blocks, self.loop.scheduler.running
        owners = Counter(block for request in running for block in request.block_table)
        assert owners == blocks._num_owners
        assert not any(request.block_table for request in self.loop.scheduler.waiting)
        assert all(block in blocks._keys for block, count in owners.items() if count > 1)
        free = Counter(blocks._free) + Counter(blocks._idle.keys()) + Counter(range(blocks._unused, blocks.num_blocks))
        assert free + Counter(owners.keys()) == Counter(range(blocks.num_blocks))
        for client in [each for each in self.clients if each.call.is_over or each.call.left]:
            self._check_tokens(client.call, client.given)
            self.clients.remove(client)

    def _check_tokens(self, call: Call, given: list[Request]) -> None:
        if call.error is not None and LOST not in str(call.error):
            raise call.error  # what the model found in its cache
        for request, tokens in zip(given, fresh_run(given), strict=True):
            got = request.completion.token_ids
            is_whole = request.completion.finish_reason in ("stop", "length")
            assert got == (tokens if is_whole else tokens[: len(got)])
            self.counts["whole"] += is_whole
        metrics = given[0].result.metrics
        for name in ("preemptions", "num_draft_tokens", "num_accepted_tokens"):
            self.counts[name] += getattr(metrics, name)
        self.counts["cached tokens"] += given[0].result.num_cached_tokens or 0


def requests(prompt: Sequence[int], params: SamplingParams, adapter: FakeAdapter | None) -> list[Request]:
    """Returns the requests of all completions of a prompt."""
    result = RequestOutput("0", None, list(prompt), [], finished=False)
    total, stops = min(MAX_LEN, len(prompt) + (params.max_tokens or MAX_LEN)), frozenset(params.stop_token_ids or ())
    return [Request(result, 0, params, total, stops, adapter=adapter) for _ in range(params.n)]


def fresh_run(given: Sequence[Request]) -> list[list[int]]:
    """Returns the tokens of requests by themselves, without cache, scheduler and guesses."""
    first = given[0]
    content = 0 if first.adapter is None else first.adapter.content
    again = requests(first.result.prompt_token_ids, first.params, first.adapter)
    call = Call(again, streams=False)
    assert call.requests == again
    for request in again:
        while request.completion.finish_reason is None:
            (sampled,) = sample([logits_of(np.array(request.token_ids), content)], [request])
            assert not isinstance(sampled, Exception)
            request.append(sampled.token_id, sampled.logprobs)
    return [request.completion.token_ids for request in again]


def random_action(world: World, rng: random.Random) -> None:
    """Does one thing that clients and operators do."""
    kind = rng.choices(
        ["submit", "step", "read", "leave", "load", "unload", "fail", "wait"], [12, 60, 25, 1, 2, 1, 0.1, 6]
    )[0]
    if kind == "submit":
        kind_of_text = rng.randrange(3)
        begin = [(place * (place + kind_of_text)) % VOCAB for place in range(rng.choice([4, 8, 16]))]
        prompt = begin + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 12))]
        n = rng.choice([1, 1, 1, 3])
        params = SamplingParams(
            n=n, max_tokens=rng.randrange(1, 24), temperature=0.8 if n > 1 else rng.choice([0.0, 0.8]),
            seed=rng.randrange(9), stop_token_ids=[rng.randrange(VOCAB)] if rng.random() < 0.2 else None,
        )  # fmt: skip
        adapter = rng.choice([None, None, *"abcd"])
        world.submit(prompt, params, adapter, rng.random() < 0.7, rng.choice([0.5, 30.0, 1000.0]))
    elif kind == "step":
        for _ in range(rng.randrange(1, 6)):
            world.step()
    elif kind == "load":
        world.load(rng.choice("abcd"), rng.randrange(1, 5))
    elif kind == "unload":
        world.unload(rng.choice("abcd"))
    elif kind == "fail":
        world.model.fails = True
    elif kind == "wait":
        world.idle += rng.expovariate(2.0)
    else:
        {"read": world.read, "leave": world.leave}[kind](rng.randrange(100))
