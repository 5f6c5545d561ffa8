# SPDX-License-Identifier: Apache-2.0
"""Fusions defined by two small functions, a pattern and its replacement, in the API that models use.

    def pattern(a, b, weight, *, eps):
        total = a + b
        return rms_norm(total, weight, eps), total

Positional parameters match any tensor, keyword-only ones any attribute value. The pattern is recorded once; a match
is a set of nodes with the same ops and the same dataflow, anywhere in the network.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import permutations
from typing import Any, NamedTuple

from atb_core.graph.network import Network, Node
from atb_core.graph.op import AttributeVariable, Op
from atb_core.graph.ops.elewise import Elewise, ElewiseType
from atb_core.graph.passes.rewrite import Rewriter
from atb_core.graph.source import place_of
from atb_core.graph.tensor import Tensor

_COMMUTATIVE = frozenset({ElewiseType.ADD, ElewiseType.MUL})


@dataclass(frozen=True)
class Match:
    """Match of a pattern in a network.

    Attributes:
        nodes: the matched nodes in execution order.
        tensors: the tensors bound to the pattern's positional parameters.
        attributes: the values bound to the pattern's keyword-only parameters.
        outputs: the tensors that correspond to the pattern's results.
    """

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    attributes: dict[str, Any]
    outputs: tuple[Tensor, ...]


class Fusion:
    """Replaces every match of `pattern` for which `where(match)` holds.

    The instance is itself a pass: calling it with a network returns the rewritten network.

    Args:
        pattern: records the nodes to find; it returns the values that are still needed after the fusion.
        replacement: records what replaces them, from the same parameters and with the same number of results.
        where: further condition on a match, e.g. on shapes.
    """

    def __init__(
        self,
        pattern: Callable[..., Any],
        replacement: Callable[..., Any],
        where: Callable[[Match], bool] = lambda match: True,
    ) -> None:
        self.replacement = replacement
        self.where = where
        parameters = inspect.signature(pattern).parameters.values()
        self._tensors = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        attributes = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
        with Network("pattern") as self._pattern:
            inputs = [Tensor(name) for name in self._tensors]
            results = pattern(*inputs, **{name: AttributeVariable(name) for name in attributes})
        self._outputs: tuple[Tensor, ...] = results if isinstance(results, tuple) else (results,)
        anchor = self._pattern.producer(self._outputs[0])
        assert anchor is not None, "a pattern returns what it computes"
        self._anchor = anchor

    def __call__(self, network: Network) -> Network:
        """Returns the network with every match replaced, or the network itself if there is none."""
        matches = {id(match.nodes[-1]): match for match in self._select(network)}
        if not matches:
            return network
        replaced = {id(node) for match in matches.values() for node in match.nodes}
        rewriter = Rewriter(network)
        for node in network.nodes:
            if id(node) in matches:
                self._replace(rewriter, matches[id(node)])
            elif id(node) not in replaced:
                rewriter.keep(node)
        return rewriter.finish()

    def _replace(self, rewriter: Rewriter, match: Match) -> None:
        last = match.nodes[-1]
        inputs = [rewriter.value(match.tensors[name]) for name in self._tensors]
        with rewriter.new, place_of(last.module_path, last.source):
            results = self.replacement(*inputs, **match.attributes)
        results = results if isinstance(results, tuple) else (results,)
        rewriter.image.update(zip(match.outputs, results, strict=True))
        if any(node.cut_after for node in match.nodes):
            rewriter.new.cut()

    def _select(self, network: Network) -> Iterator[Match]:
        """Yields the matches that can be replaced, none of which share a node."""
        index = {id(node): position for position, node in enumerate(network.nodes)}
        written = {node.inputs[i] for node in network.nodes for i in node.writes}
        users, taken = network.users(), set[int]()
        for node in network.nodes:
            state = next(self._match_node(network, self._anchor, node, _State({}, {}, {})), None)
            if state is None:
                continue
            nodes = tuple(sorted(state.nodes.values(), key=lambda n: index[id(n)]))
            match = Match(
                nodes,
                {name: state.tensors[self._pattern.input(name)] for name in self._tensors},
                state.attributes,
                tuple(state.tensors[t] for t in self._outputs),
            )
            ids = {id(n) for n in nodes}
            if ids & taken or not _replaceable(match, network, users, written, index) or not self.where(match):
                continue
            taken |= ids
            yield match

    def _match_node(self, network: Network, pattern: Node, node: Node, state: _State) -> Iterator[_State]:
        known = state.nodes.get(id(pattern))
        if known is not None:
            if known is node:
                yield state
            return
        attributes = _match_attributes(pattern.op, node.op, state.attributes)
        if attributes is None or len(pattern.inputs) != len(node.inputs) or len(pattern.outputs) != len(node.outputs):
            return
        tensors = {**state.tensors, **dict(zip(pattern.outputs, node.outputs, strict=True))}
        start = _State({**state.nodes, id(pattern): node}, tensors, attributes)
        for order in _orders(node):
            yield from self._match_inputs(network, list(zip(pattern.inputs, order, strict=True)), start)

    def _match_inputs(self, network: Network, pairs: list[tuple[Tensor, Tensor]], state: _State) -> Iterator[_State]:
        if not pairs:
            yield state
            return
        (wanted, tensor), rest = pairs[0], pairs[1:]
        pattern = self._pattern.producer(wanted)
        if pattern is None:
            if state.tensors.get(wanted, tensor) is tensor:
                bound = state._replace(tensors={**state.tensors, wanted: tensor})
                yield from self._match_inputs(network, rest, bound)
            return
        producer = network.producer(tensor)
        if producer is None or pattern.outputs.index(wanted) != producer.outputs.index(tensor):
            return
        for extended in self._match_node(network, pattern, producer, state):
            yield from self._match_inputs(network, rest, extended)


class _State(NamedTuple):
    """Partial match: bindings of the pattern's nodes, tensors and attribute variables."""

    nodes: dict[int, Node]
    tensors: dict[Tensor, Tensor]
    attributes: dict[str, Any]


def _match_attributes(pattern: Op, op: Op, bound: dict[str, Any]) -> dict[str, Any] | None:
    """Returns `bound` extended by the attributes of this pair of ops, or `None` if they do not match."""
    if type(pattern) is not type(op):
        return None
    bound = dict(bound)
    for field in fields(pattern):  # type: ignore[arg-type]
        wanted, value = getattr(pattern, field.name), getattr(op, field.name)
        if isinstance(wanted, AttributeVariable):
            wanted = bound.setdefault(wanted.name, value)
        if wanted != value:
            return None
    return bound


def _orders(node: Node) -> list[tuple[Tensor, ...]]:
    commutes = isinstance(node.op, Elewise) and node.op.elewise_type in _COMMUTATIVE
    return list(permutations(node.inputs)) if commutes else [node.inputs]


def _replaceable(
    match: Match, network: Network, users: dict[Tensor, list[Node]], written: set[Tensor], index: dict[int, int]
) -> bool:
    """Returns `True` if replacing the match at its last node changes nothing for the rest of the network.

    Inner values must have no reader outside of the match, results must not be read before the last node, and no memory
    that is written in place may be involved.
    """
    inside = {id(node) for node in match.nodes}
    last = index[id(match.nodes[-1])]
    results, finals = set(match.outputs), set(network.outputs)
    for node in match.nodes:
        if node.writes or any(tensor in written for tensor in node.inputs):
            return False
        for tensor in node.outputs:
            readers = [n for n in users.get(tensor, []) if id(n) not in inside]
            if tensor in results:
                if any(index[id(reader)] < last for reader in readers):
                    return False
            elif readers or tensor in finals:
                return False
    return True
