# SPDX-License-Identifier: Apache-2.0
"""Owners of the blocks of the paged key/value cache.

The cache is cut into blocks of `block_size` slots. A sequence owns whole blocks and lists them in its *block table*:
position `p` of the sequence is in slot `table[p // block_size] * block_size + p % block_size`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence


def block_key(before: bytes, token_ids: Sequence[int]) -> bytes:
    """Returns the key of a full block: of its tokens and, by the key of the block before it, of all tokens before them.

    Prompts are untrusted, so no two of them may be made to have the same key.
    """
    return hashlib.blake2b(before + array("q", token_ids).tobytes(), digest_size=20).digest()


class BlockManager:
    """Allocates blocks, numbered from 0, and takes them back.

    Full blocks can be published under a key; from then on nobody writes them, and several sequences may own them. A
    published block that nobody owns any more keeps its contents until it is needed for something else: those that were
    given back first go first.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.clear()

    def clear(self) -> None:
        """Takes all blocks back from whoever owned them, and forgets what is in them."""
        # Blocks from here on have never been used: a cache of millions of blocks takes no list of all of them.
        self._unused = 0
        # A stack: the block freed last is used next, while its memory is still near the processor.
        self._free: list[int] = []
        self._num_owners: dict[int, int] = {}
        self._keys: dict[int, bytes] = {}
        self._published: dict[bytes, int] = {}
        # Published blocks without an owner, those that are given out next in front.
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Number of blocks without an owner."""
        return self.num_blocks - len(self._num_owners)

    def blocks_for(self, num_tokens: int) -> int:
        """Returns the number of blocks that `num_tokens` positions take."""
        return -(-num_tokens // self.block_size)

    def grow(self, table: list[int], num_tokens: int) -> bool:
        """Appends blocks to `table` until it covers `num_tokens` positions.

        Returns:
            False, with nothing changed, if there are not enough free blocks.
        """
        missing = self.blocks_for(num_tokens) - len(table)
        if missing > self.num_free:
            return False
        for _ in range(missing):
            block = self._take()
            self._num_owners[block] = 1
            table.append(block)
        return True

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._unused < self.num_blocks:
            self._unused += 1
            return self._unused - 1
        block, _ = self._idle.popitem(last=False)
        del self._published[self._keys.pop(block)]
        return block

    def count_published(self, keys: Iterable[bytes]) -> int:
        """Returns how many of the keys, from the first on without a gap, are those of published blocks."""
        count = 0
        for key in keys:
            if key not in self._published:
                break
            count += 1
        return count

    def share(self, table: list[int], keys: Iterable[bytes]) -> None:
        """Appends the published blocks of these keys to `table`, which becomes one more of their owners."""
        for key in keys:
            block = self._published[key]
            self._idle.pop(block, None)
            self._num_owners[block] = self._num_owners.get(block, 0) + 1
            table.append(block)

    def publish(self, block: int, key: bytes) -> None:
        """Lets others share a full block. Of several with the same contents the first one is shared."""
        if key not in self._published:
            self._published[key] = block
            self._keys[block] = key

    def free(self, table: list[int]) -> None:
        """Takes back every block of `table`, the last one first, and empties it."""
        while table:
            block = table.pop()
            if block not in self._num_owners:
                raise RuntimeError(f"block {block} is freed but has no owner")
            self._num_owners[block] -= 1
            if self._num_owners[block]:
                continue
            del self._num_owners[block]
            if block in self._keys:
                self._idle[block] = None
            else:
                self._free.append(block)
