# SPDX-License-Identifier: Apache-2.0
"""A block that nobody shares has one owner at most, what is shared stays as it is, and none is ever lost."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atb_core.runner.block_manager import BlockManager, block_key


class Owners(RuleBasedStateMachine):
    """Sequences that grow, share and end in any order, against a plain account of who owns what.

    The contents of a block are those that its owner wrote last: a shared one must have what its key stands for.
    """

    BLOCKS, SIZE = 13, 3

    def __init__(self) -> None:
        super().__init__()
        self.manager = BlockManager(self.BLOCKS, self.SIZE)
        self.tables: dict[int, list[int]] = {}
        self.texts: dict[int, list[int]] = {}
        self.contents: dict[int, bytes] = {}

    def keys_of(self, text: list[int]) -> list[bytes]:
        keys = [b""]
        for start in range(0, len(text) - self.SIZE + 1, self.SIZE):
            keys.append(block_key(keys[-1], text[start : start + self.SIZE]))
        return keys[1:]

    @rule(owner=st.integers(0, 5), text=st.lists(st.integers(0, 1), min_size=1, max_size=30))
    def begin(self, owner: int, text: list[int]) -> None:
        """Gives an owner a new text: shares what there is of it, writes and publishes the rest."""
        table = self.tables.setdefault(owner, [])
        self.manager.free(table)
        keys = self.keys_of(text)
        shared = self.manager.count_published(keys)
        self.manager.share(table, keys[:shared])
        assert [self.contents[block] for block in table] == keys[:shared]
        free, missing = self.manager.num_free, -(-len(text) // self.SIZE) - shared
        assert self.manager.grow(table, len(text)) == (missing <= free)
        assert len(table) == shared + (missing if missing <= free else 0)
        if missing > free:
            self.manager.free(table)
            return
        for place, block in enumerate(table[shared:], start=shared):
            self.contents[block] = keys[place] if place < len(keys) else b""
            if place < len(keys):
                self.manager.publish(block, keys[place])

    @rule(owner=st.integers(0, 5), more=st.integers(1, 9))
    def grow(self, owner: int, more: int) -> None:
        table = self.tables.setdefault(owner, [])
        before, free = list(table), self.manager.num_free
        tokens = len(table) * self.SIZE + more
        missing = -(-tokens // self.SIZE) - len(table)
        assert self.manager.grow(table, tokens) == (missing <= free)
        assert table[: len(before)] == before
        for block in table[len(before) :]:
            self.contents[block] = b""

    @rule(owner=st.integers(0, 5))
    def free(self, owner: int) -> None:
        self.manager.free(self.tables.setdefault(owner, []))
        assert self.tables[owner] == []

    @rule()
    def clear(self) -> None:
        self.manager.clear()
        self.tables.clear()

    @invariant()
    def every_block_is_free_or_owned(self) -> None:
        owned = [block for table in self.tables.values() for block in table]
        assert set(owned) <= set(range(self.BLOCKS))
        assert len(set(owned)) + self.manager.num_free == self.BLOCKS
        shared = {block for block in owned if owned.count(block) > 1}
        assert all(self.contents[block] for block in shared)


TestOwners = Owners.TestCase
TestOwners.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_freeing_a_block_that_nobody_owns_is_refused() -> None:
    manager = BlockManager(4, 2)
    table: list[int] = []
    assert manager.grow(table, 3)
    copy = list(table)
    manager.free(table)
    with pytest.raises(RuntimeError, match="has no owner"):
        manager.free(copy)


def test_a_cache_of_millions_of_blocks_costs_what_is_used_of_it() -> None:
    tracemalloc.start()
    try:
        manager = BlockManager(10_000_000, 16)
        table: list[int] = []
        assert manager.grow(table, 33)
        assert table == [0, 1, 2]
        assert manager.num_free == 10_000_000 - 3
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


def test_what_was_given_back_first_goes_first_and_the_end_of_a_text_before_its_beginning() -> None:
    manager = BlockManager(6, 1)
    keys = [bytes([number]) for number in range(6)]
    old: list[int] = []
    new: list[int] = []
    assert manager.grow(old, 3)
    assert manager.grow(new, 3)
    for block, key in zip([*old, *new], keys, strict=True):
        manager.publish(block, key)
    manager.free(old)
    manager.free(new)
    assert manager.num_free == 6
    other: list[int] = []
    assert manager.grow(other, 2)
    assert [manager.count_published([key]) for key in keys] == [1, 0, 0, 1, 1, 1]
    # Shared once more, it is the last to go.
    table: list[int] = []
    manager.share(table, keys[:1])
    manager.free(table)
    assert manager.grow(other, 5)
    assert [manager.count_published([key]) for key in keys] == [1, 0, 0, 0, 0, 0]


def test_keys_tell_texts_apart_by_all_that_comes_before() -> None:
    first, other = block_key(b"", [1, 2]), block_key(b"", [2, 1])
    assert len({first, other, block_key(first, [1, 2]), block_key(other, [1, 2])}) == 4
    assert block_key(b"", [1, 2]) == first
