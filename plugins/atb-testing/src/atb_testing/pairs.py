# SPDX-License-Identifier: Apache-2.0
"""Pairs the values of two dumps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch


class Pairs:
    """The values of a step in two dumps.

    Args:
        a: descriptions of the values of one, as `dump.json` has them.
        b: those of the other.
        left: tensors of the one by key.
        right: those of the other.
        are_parts: true if the dumps are of different numbers of processes, of which the first has parts of some values.

    Attributes:
        dtypes: types of the models, where they are known.
    """

    dtypes: Sequence[Any] = ()

    def __init__(
        self, a: list[dict[str, Any]], b: list[dict[str, Any]], left: Any, right: Any, are_parts: bool = False
    ) -> None:
        self.a, self.b, self.left, self.right, self.are_parts = a, b, left, right, are_parts
        self._parts_of_a = _parts(a) if are_parts else set()
        names = set(right.keys())
        kept = [value for value in b if value["key"] in names]
        self._keys = {value["key"] for value in kept} - (_parts(b) if are_parts else set())
        self._leaves = {path: value["key"] for value in kept for path in value["leaves"]}
        self.keys_of_a = set(left.keys())
        self.order_of_b = {value["key"]: index for index, value in enumerate(b)}

    def tensors(self, key: str, partner: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the tensors of a pair."""
        return self.left.get_tensor(key), self.right.get_tensor(partner)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], str | None]]:
        for value in self.a:
            if value["key"] in self.keys_of_a:
                yield value, self._partner(value)

    def _partner(self, value: dict[str, Any]) -> str | None:
        if value["key"] in self._parts_of_a:
            return None
        if value["key"] in self._keys:
            return str(value["key"])
        return next((self._leaves[path] for path in value["leaves"] if path in self._leaves), None)

    def alone_between(self, last: tuple[str, str] | None, here: tuple[str, str]) -> tuple[str, ...]:
        """Returns the nodes of both graphs, between two pairs of values, that have no partner."""
        matched_a = {value["key"] for value, partner in self if partner is not None}
        matched_b = {partner for _, partner in self if partner is not None}
        order_a = {value["key"]: index for index, value in enumerate(self.a)}
        found = []
        for values, order, matched, side in (
            (self.a, order_a, matched_a, 0),
            (self.b, self.order_of_b, matched_b, 1),
        ):
            begin = -1 if last is None else order[last[side]]
            found += [v["key"] for v in values[begin + 1 : order[here[side]] + 1] if v["key"] not in matched]
        return tuple(dict.fromkeys(found))


def _parts(values: list[dict[str, Any]]) -> set[str]:
    """Returns the keys of what is summed over processes."""
    return {key for value in values if value["op"].rpartition(".")[2] == "AllReduce" for key in value["inputs"]}
