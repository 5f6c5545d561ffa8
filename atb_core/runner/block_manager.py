# SPDX-License-Identifier: Apache-2.0
"""Owners of the blocks of the paged key/value cache.

The cache is cut into blocks of `block_size` slots. A sequence owns whole blocks and lists them in its *block table*:
position `p` of the sequence is in slot `table[p // block_size] * block_size + p % block_size`.
"""

from __future__ import annotations


class BlockManager:
    """Allocates blocks, numbered from 0, and takes them back. A block has at most one owner at any time."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.clear()

    def clear(self) -> None:
        """Takes all blocks back from whoever owned them."""
        # Blocks from here on have never been used: a cache of millions of blocks takes no list of all of them.
        self._unused = 0
        # A stack: the block freed last is used next, while its memory is still near the processor.
        self._free: list[int] = []
        self._is_free = bytearray(b"\1") * self.num_blocks

    @property
    def num_free(self) -> int:
        """Number of blocks without an owner."""
        return len(self._free) + self.num_blocks - self._unused

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
            if self._free:
                block = self._free.pop()
            else:
                block, self._unused = self._unused, self._unused + 1
            self._is_free[block] = 0
            table.append(block)
        return True

    def free(self, table: list[int]) -> None:
        """Takes back every block of `table` and empties it."""
        while table:
            block = table.pop()
            if self._is_free[block]:
                raise RuntimeError(f"block {block} is freed but has no owner")
            self._is_free[block] = 1
            self._free.append(block)
