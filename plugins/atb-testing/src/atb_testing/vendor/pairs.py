# SPDX-License-Identifier: Apache-2.0
"""Pairs the tensors of a vendor's round with those of a dump, or of another round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from atb_testing.dump import DumpError
from atb_testing.pairs import Pairs
from atb_testing.vendor.matching import partners_of
from atb_testing.vendor.modules import ModuleDump
from atb_testing.vendor.rounds import Operation, Round

#: Values before one whose errors it may have got: a round does not say what an operation reads.
_BEFORE = 8


class _Tensors:
    """The outputs of a round by key, `2_Prefill_layer/0_RmsNormOperation/outtensor0`."""

    def __init__(self, found: Round) -> None:
        self._round = found
        self._paths = {
            f"{operation.path}/outtensor{number}": (operation, path)
            for operation in found.operations
            for number, path in sorted(operation.outputs.items())
            if found.header(path) is not None
        }

    def keys(self) -> list[str]:
        """Returns the keys of what the innermost operations wrote."""
        return [key for key, (operation, _) in self._paths.items() if operation.leaf]

    def get_tensor(self, key: str) -> torch.Tensor:
        return self._round.tensor(self._paths[key][1])

    def values(self) -> list[dict[str, Any]]:
        """Returns descriptions as `dump.json` has them."""
        keys = self.keys()
        return [self._value(key, keys[max(at - _BEFORE, 0) : at]) for at, key in enumerate(keys)]

    def _value(self, key: str, before: list[str]) -> dict[str, Any]:
        operation: Operation = self._paths[key][0]
        module = operation.path.rpartition("/")[0]
        about = {"op": operation.names[-1], "module": module, "source": str(self._paths[key][1])}
        return {"key": key, **about, "inputs": before, "leaves": []}


class _WithOthers(Pairs):
    """The values of a step of ours and their partners in a dump of the vendor's."""

    def __init__(
        self, values: list[dict[str, Any]], left: Any, right: _Tensors | ModuleDump, partners: dict[str, str]
    ) -> None:
        self.partners = partners
        super().__init__(values, right.values(), left, right)
        # What a layer wrote is behind what its operations wrote.
        for partner in partners.values():
            inside = [
                index for key, index in self.order_of_b.items() if key.startswith(partner.partition("/")[0] + "/")
            ]
            self.order_of_b.setdefault(partner, max(inside, default=0))

    def _partner(self, value: dict[str, Any]) -> str | None:
        return self.partners.get(value["key"])

    def tensors(self, key: str, partner: str) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = super().tensors(key, partner)
        if x.numel() != y.numel():
            raise DumpError(f"{partner} has {y.numel()} elements, and its dump says {x.numel()}")
        # The same elements: ATB has no views, so an operation may write heads apart, or a batch of one.
        return x, y.reshape(x.shape)


def pairs_with_round(values: list[dict[str, Any]], left: Any, found: Round, variant: str) -> Pairs:
    """Pairs a step of a dump, `values` with their tensors in `left`, with a round."""
    return _WithOthers(values, left, _Tensors(found), partners_of(values, _sizes(left), found, variant))


def pairs_with_modules(values: list[dict[str, Any]], left: Any, found: ModuleDump) -> Pairs:
    """Pairs a step of a dump with the modules that its values leave."""
    return _WithOthers(values, left, found, found.partners_of(values, _sizes(left)))


def _sizes(left: Any) -> dict[str, int]:
    keys: list[str] = left.keys()
    return {key: math.prod(left.get_slice(key).get_shape()) for key in keys}


def pairs_of_rounds(first: Round, second: Round) -> Pairs:
    """Pairs two rounds by the paths of their operations."""
    left, right = _Tensors(first), _Tensors(second)
    return Pairs(left.values(), right.values(), left, right)


def check_tokens(found: Round, tokens: Sequence[int]) -> None:
    """Refuses a round that began with other tokens, where its first operation read as many integers.

    Raises:
        DumpError: none of these are the tokens.
    """
    seen = []
    for operation in found.operations:
        if operation.ids[0] != found.operations[0].ids[0]:
            break
        for path in operation.inputs.values():
            file = found.header(path)
            if file is None or file.dtype not in (torch.int32, torch.int64) or file.numel != len(tokens):
                continue
            seen.append(found.tensor(path).flatten().tolist())
    if seen and list(tokens) not in seen:
        raise DumpError(
            f"{found.directory} began with {seen[0][:8]} and the step with {list(tokens)[:8]}",
            hint="Dump both with the same tokens: `atb dump --token-ids 1,2,3`; --step chooses another step.",
        )
