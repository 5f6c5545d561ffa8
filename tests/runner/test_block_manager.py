# SPDX-License-Identifier: Apache-2.0
"""Blocks have at most one owner, and none is ever lost."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atb_core.runner.block_manager import BlockManager


class Owners(RuleBasedStateMachine):
    """Sequences that grow and end in any order, against a plain account of who owns what."""

    BLOCKS, SIZE = 13, 3

    def __init__(self) -> None:
        super().__init__()
        self.manager = BlockManager(self.BLOCKS, self.SIZE)
        self.tables: dict[int, list[int]] = {}

    @rule(owner=st.integers(0, 5), tokens=st.integers(1, 50))
    def grow(self, owner: int, tokens: int) -> None:
        table = self.tables.setdefault(owner, [])
        before, free = list(table), self.manager.num_free
        missing = max(0, -(-tokens // self.SIZE) - len(table))
        assert self.manager.grow(table, tokens) == (missing <= free)
        assert table[: len(before)] == before
        assert len(table) == len(before) + (missing if missing <= free else 0)

    @rule(owner=st.integers(0, 5))
    def free(self, owner: int) -> None:
        self.manager.free(self.tables.setdefault(owner, []))
        assert self.tables[owner] == []

    @invariant()
    def every_block_is_free_or_owned_once(self) -> None:
        owned = [block for table in self.tables.values() for block in table]
        assert len(owned) == len(set(owned))
        assert set(owned) <= set(range(self.BLOCKS))
        assert len(owned) + self.manager.num_free == self.BLOCKS


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


def test_a_cache_of_millions_of_blocks_costs_a_byte_for_each() -> None:
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
    assert peak < 25_000_000
