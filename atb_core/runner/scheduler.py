# SPDX-License-Identifier: Apache-2.0
"""Chooses the requests that take part in the next step (continuous batching)."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from atb_core.errors import EngineError
from atb_core.runner.block_manager import BlockManager, block_key
from atb_core.runner.request import Request

if TYPE_CHECKING:
    from atb_core.features.adapters import Adapter
    from atb_core.runner.drafting import Drafter

_age = attrgetter("arrival")
# Behind this many tokens the attention of a small model takes as long as all else; with larger ones it takes less.
GROWTH = 2048
# A step reads what is before a chunk in the time of up to so many further tokens.
_READING = 8
# Chunks of prompts in a step beside streams, if more wait for a first token: it is 3.6 to 4.2 times one without.
_MOST_CHUNKS = 2


def tokens_of_reading(context: int) -> int:
    """Returns about how many tokens of a chunk take as long as reading so many tokens before it."""
    return _READING * context // (context + GROWTH)


class Batch(NamedTuple):
    """One step.

    Attributes:
        phase: `"prefill"`: whole prompts; `"decode"`: one token each; `"mixed"`: any number of tokens each.
        requests: Those that take part.
        counts: How many of its tokens each request brings.
        num_decoding: Number of those that bring their newest token; they come first.
        drafts: Guessed tokens that follow a request's newest token, to be checked in the same step.
    """

    phase: Literal["prefill", "decode", "mixed"]
    requests: list[Request]
    counts: list[int]
    num_decoding: int
    drafts: Mapping[Request, list[int]] = MappingProxyType({})


class Scheduler:
    """First come, first served; a new request joins the running ones as soon as there is room.

    In a step each running request brings its newest token, and then prompts bring as many of theirs as the limits
    leave, a long one in chunks, with which shorter ones take turns. Beside streams, the chunks of a model that can
    pause are larger, and computed in slices of time between steps. A model that cannot mix takes whole prompts in
    steps of their own (one always goes, however long), in turn with the others. A request that wants log probabilities
    of its prompt has a step for itself.

    What the cache has of a prompt already is not computed again. When blocks are needed and none is free, a running
    request gives its blocks back and is queued first, to be computed again: its tokens so far are kept and come out the
    same. That is the youngest of those whose callers do not read, which take part in no step, else the youngest of all.

    Args:
        max_num_batched_tokens: Largest number of prompt tokens in a step.
        can_mix: Returns whether the model has mixed steps; asked when one is needed first.
        can_slice: Returns whether the model can compute a chunk in slices of time; asked when that is needed first.
        shares_prefixes: Looks for prompts in the cache.
        max_adapters: Largest number of adapters in a step.
        mixes_adapters: True if the requests of a step may have different adapters, or none.
        make_drafter: Makes what guesses the next tokens of a request; `None`: nothing is guessed.

    Attributes:
        blocks: The cache's blocks.
        max_num_seqs: Largest number of requests in a step.
        chunk_size: Returns the number of tokens of a prompt for a step in which so many others get their next token for
            a stream, or none does and another prompt may come, by how many tokens are before them.
        sliced_size: Returns the same for a chunk in slices.
        draft_cost: Time of one guessed token in a step, relative to a step without.
        sliced: The chunk that is computed in slices between steps, while there is one. Its request takes part in no
            step. Who has computed it, or ends its request, sets this to `None`.
    """

    def __init__(
        self,
        blocks: BlockManager,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        *,
        can_mix: Callable[[], bool] = lambda: False,
        can_slice: Callable[[], bool] = lambda: False,
        shares_prefixes: bool = False,
        max_adapters: int = 1,
        mixes_adapters: bool = True,
        make_drafter: Callable[[], Drafter] | None = None,
    ) -> None:
        self.blocks = blocks
        self.max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self.chunk_size: Callable[[int, int], int] = lambda num_decoding, context: max_num_batched_tokens
        self.sliced_size = self.chunk_size
        self.sliced: Batch | None = None
        self._ask_can_mix, self._can_slice = can_mix, cache(can_slice)
        self._mixes: bool | None = None
        self._shares_prefixes = shares_prefixes
        self._max_adapters = max_adapters
        self._mixes_adapters = mixes_adapters
        self._make_drafter = make_drafter
        self.draft_cost = 0.0
        self._arrivals = itertools.count()
        self._left_out_decode = self._has_preempted = self._has_passed = self._has_sliced_past = False
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def add(self, requests: Iterable[Request]) -> None:
        """Queues new requests."""
        for request in requests:
            request.arrival = next(self._arrivals)
            request.drafter = self._make_drafter and self._make_drafter()
            self.waiting.append(request)

    def next_batch(self) -> Batch | None:
        """Chooses the next step and makes its blocks available; returns `None` if no request can run."""
        self._has_preempted = False
        # The adapters of the step, None for requests without one.
        adapters: set[Adapter | None] = set()
        decoding = self._make_room_for_decode(adapters)
        prompts: list[Request] = []
        counts: list[int] = []
        if (self.waiting or len(decoding) < len(self.running)) and not (self._left_out_decode and decoding):
            prompts, counts = self._take_prompts(decoding, adapters)
        self._left_out_decode = False
        if not prompts:
            drafts = self._draft(decoding) if self._make_drafter else {}
            phase: Literal["decode", "mixed"] = "mixed" if drafts else "decode"
            return Batch(phase, decoding, [1] * len(decoding), len(decoding), drafts) if decoding else None
        if decoding and not prompts[0].wants_prompt_logprobs and self._can_mix():
            return Batch("mixed", decoding + prompts, [1] * len(decoding) + counts, len(decoding))
        self._left_out_decode = bool(decoding)
        are_whole = all(count == len(request) for request, count in zip(prompts, counts, strict=True))
        return Batch("prefill" if are_whole else "mixed", prompts, counts, 0)

    def mark_computed(self, requests: Sequence[Request], counts: Sequence[int]) -> None:
        """Notes that the cache has so many further tokens of requests; lets others share blocks that are full now."""
        for request, count in zip(requests, counts, strict=True):
            full = request.num_computed // self.blocks.block_size
            request.num_computed += count
            now_full = request.num_computed // self.blocks.block_size
            if now_full > full and self._shares_prefixes and self._mixes is not False:
                keys = self._keys(request, now_full)
                for place in range(full, now_full):
                    self.blocks.publish(request.block_table[place], keys[place])

    def remove(self, requests: Iterable[Request]) -> None:
        """Removes those of the requests that are here and frees their blocks."""
        leaving = set(requests)
        for request in leaving:
            self._free(request)
        self.running = [request for request in self.running if request not in leaving]
        if not leaving.isdisjoint(self.waiting):
            self.waiting = deque(request for request in self.waiting if request not in leaving)

    def clear(self) -> None:
        """Removes all requests; no block has an owner afterwards."""
        for request in self.running:
            request.block_table.clear()
        self.running, self.sliced = [], None
        self.waiting.clear()
        self.blocks.clear()

    def _free(self, request: Request) -> None:
        """Frees the blocks of a request; what is computed of it in slices has nowhere to go."""
        self.blocks.free(request.block_table)
        if self.sliced is not None and request in self.sliced.requests:
            self.sliced = None

    def _draft(self, decoding: list[Request]) -> dict[Request, list[int]]:
        """Returns guesses for the requests that have some, with cache blocks for them. Nobody loses blocks for it."""
        drafts: dict[Request, list[int]] = {}
        for request in decoding:
            if request.drafter is not None:
                # The step adds a token after the last guess, too.
                limit = request.max_total - len(request) - 1
                draft = request.drafter.draft(request.token_ids, limit, self.draft_cost)
                if draft and self.blocks.grow(request.block_table, len(request) + len(draft)):
                    drafts[request] = draft
        return drafts

    def _can_mix(self) -> bool:
        if self._mixes is None:
            self._mixes = self._ask_can_mix()
        return self._mixes

    def _joins(self, request: Request, adapters: set[Adapter | None]) -> bool:
        """Returns whether a request can be in a step with these adapters, and adds its own to them if so."""
        together = adapters | {request.adapter}
        fits = len(together) == 1 or (self._mixes_adapters and len(together - {None}) <= self._max_adapters)
        if fits:
            adapters.add(request.adapter)
        return fits

    def _take_prompts(self, decoding: list[Request], adapters: set[Adapter | None]) -> tuple[list[Request], list[int]]:
        """Returns the prompts that take part in a step, and the number of tokens that each brings."""
        prompts: list[Request] = []
        counts: list[int] = []
        slow: list[Request] = []
        sliced = self.sliced.requests if self.sliced is not None else []
        candidates = self._candidates(self.max_num_seqs - len(decoding) - len(sliced), sliced)
        num_chunks = 0
        # A call does not wait for its own prompts.
        calls = {each.call for each in candidates}
        if candidates and any(each.call.streams and calls != {each.call} for each in decoding) and self._can_mix():
            # Who waits for the first token counts as much as who waits for the next one.
            num_chunks = min(_MOST_CHUNKS, max(1, len(candidates) // len(decoding)))
        # The part of the step that is left, and keys of the blocks that requests of this step are about to fill.
        left, computing = Fraction(1), {key for each in sliced for key in self._keys_of_prompt(each)}
        for request in candidates:
            is_apart = request.wants_prompt_logprobs and prompts
            # Those behind it wait too, so that a busy adapter cannot keep another one from its turn for ever.
            if left <= 0 or is_apart or not self._joins(request, adapters):
                break
            shared: list[bytes] = []
            if not request.block_table:
                shared, other_computes = self._in_cache(request, computing)
                if other_computes:
                    continue
            start = len(shared) * self.blocks.block_size or request.num_computed
            rest, size, reading = len(request) - start, self._max_num_batched_tokens, 0
            if num_chunks:
                size, reading = min(size, num_chunks * self.chunk_size(len(decoding), start)), tokens_of_reading(start)
            limit = int(left * (size + reading)) - reading
            is_first_to_wait = not prompts and (rest > limit or len(candidates) == 1)
            if request.call.streams and not decoding and (request.num_computed or is_first_to_wait):
                # Who comes meanwhile waits for one chunk, and who passes the prompt for as much as it brings itself.
                limit = min(limit, sum(counts) or self.chunk_size(0, start))
            # Evaluated from left to right: only a prompt that is too long asks whether it may be cut.
            is_cut = rest > limit and not request.wants_prompt_logprobs and self._can_mix()
            # One that has room in a step of its own does not take a run of its own, which reads all weights.
            if is_cut and num_chunks and rest > size and request.adapter is None and self._can_slice():
                if not (request.block_table or self._admit(request, shared)):
                    break
                slow.append(request)
                computing.update(self._keys_of_prompt(request))
                continue
            has_place = not prompts or (rest <= limit or (is_cut and limit > 0))
            if not has_place or not (request.block_table or self._admit(request, shared)):
                break
            prompts.append(request)
            counts.append(limit if is_cut else rest)
            left -= Fraction(counts[-1] + reading, size + reading)
            if request.wants_prompt_logprobs or is_cut:
                break
            computing.update(self._keys_of_prompt(request))
        if slow and self.sliced is None:
            self._slice(slow, len(decoding))
        return prompts, counts

    def _slice(self, requests: list[Request], num_decoding: int) -> None:
        """Chooses whose next chunk is computed in slices: the one that has the least left, and the oldest in turn."""
        oldest = min(requests, key=_age)
        request = oldest if self._has_sliced_past else min(requests, key=lambda each: len(each) - each.num_computed)
        self._has_sliced_past = request is not oldest
        start = request.num_computed
        count = min(self.sliced_size(num_decoding, start), self._max_num_batched_tokens, len(request) - start)
        self.sliced = Batch("prefill" if count == len(request) else "mixed", [request], [count], 0)

    def _candidates(self, places: int, busy: Sequence[Request]) -> list[Request]:
        """Returns requests whose prompts are to be computed, but for `busy` ones, those that have begun first.

        Beside a prompt in chunks, those come first that have the least left, unless they did in the step before. Nobody
        gets blocks before those that are older.
        """
        resting = (each for each in self.running if not (each.is_decoding or each.is_paused or each in busy))
        begun = sorted(resting, key=_age)
        # What was just taken from one request is not for another that is no older.
        waiting = (each for each in self.waiting if not (each.is_paused or self._has_preempted))
        found = [*begun[: max(0, places)], *itertools.islice(waiting, max(0, places - len(begun)))]
        oldest = found[:1]
        if begun and not self._has_passed:
            sizes = (0 if each.block_table else self.blocks.blocks_for(len(each) + 1) for each in found)
            pairs = zip(found, itertools.accumulate(sizes), strict=True)
            fitting = (each for each, size in pairs if size <= self.blocks.num_free)
            found = sorted(fitting, key=lambda each: len(each) - each.num_computed)
        self._has_passed = found[:1] != oldest
        return found

    def _in_cache(self, request: Request, computing: set[bytes]) -> tuple[list[bytes], bool]:
        """Returns the keys of the blocks that the cache has of a request, and whether the next one is being computed.

        At least one token is left to be computed: its logits are needed.
        """
        if not self._shares_prefixes or request.wants_prompt_logprobs or self._mixes is False:
            return [], False
        keys = self._keys(request, (len(request) - 1) // self.blocks.block_size)
        count = self.blocks.count_published(keys)
        other_computes = count < len(keys) and keys[count] in computing
        if (count or other_computes) and not self._can_mix():
            return [], False
        return keys[:count], other_computes

    def _keys_of_prompt(self, request: Request) -> list[bytes]:
        """Returns the keys of a request's full blocks if others can share them."""
        return self._keys(request, len(request) // self.blocks.block_size) if self._shares_prefixes else []

    def _keys(self, request: Request, num_blocks: int) -> list[bytes]:
        """Returns the keys of the first blocks of a request."""
        keys, size = request.block_keys, self.blocks.block_size
        while len(keys) < num_blocks:
            start = len(keys) * size
            # Another adapter makes other keys and values of the same tokens.
            root = b"" if request.adapter is None else request.adapter.digest
            keys.append(block_key(keys[-1] if keys else root, request.token_ids[start : start + size]))
        return keys[:num_blocks]

    def _admit(self, request: Request, shared: list[bytes]) -> bool:
        """Lets a waiting request run, on shared blocks and on new ones; returns False if there are too few."""
        self.blocks.share(request.block_table, shared)
        # One position more than the prompt needs: a request that could not take its first decode step would be
        # preempted at once.
        if not self._grow(request, min(len(request) + 1, request.max_total)):
            self.blocks.free(request.block_table)
            if self.running:
                return False
            raise EngineError(
                f"A request of {len(request)} tokens does not fit into the {self.blocks.num_blocks} blocks of the "
                "key/value cache"
            )
        request.mark_cached(len(shared) * self.blocks.block_size)
        self.waiting.remove(request)
        self.running.append(request)
        return True

    def _make_room_for_decode(self, adapters: set[Adapter | None]) -> list[Request]:
        """Gives each running request a slot for its newest token, oldest first, and returns those that got one."""
        decoding: list[Request] = []
        for request in sorted(self.running, key=_age):
            # One that was preempted just now decodes no more.
            if request.is_paused or not request.is_decoding or len(decoding) == self.max_num_seqs:
                continue
            if not self._joins(request, adapters):
                continue
            while not self._grow(request, len(request)):
                youngest = max(self.running, key=_age)
                self._preempt(youngest)
                if youngest is request:
                    break
            else:
                decoding.append(request)
        return decoding

    def _grow(self, request: Request, num_tokens: int) -> bool:
        """Gives a request the blocks for its first tokens, if need be those of requests that nobody reads."""
        while not self.blocks.grow(request.block_table, num_tokens):
            unread = [each for each in self.running if each.is_paused]
            if not unread:
                return False
            self._preempt(max(unread, key=_age))
        return True

    def _preempt(self, request: Request) -> None:
        """Takes the blocks of a running request and queues it first."""
        self._has_preempted = True
        self._free(request)
        request.num_computed = 0
        request.result.metrics.preemptions += 1
        self.running.remove(request)
        self.waiting.appendleft(request)
