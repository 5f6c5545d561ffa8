# SPDX-License-Identifier: Apache-2.0
"""Compares two networks: which nodes one has and the other has not, and which are otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from atb_core.graph import Network, Node

SAME, CHANGED, REMOVED, ADDED = "same", "changed", "removed", "added"


class Change(NamedTuple):
    """A node of one network or of both.

    Attributes:
        kind: `same`, `changed`, `removed` or `added`.
        before: its position in the first network, -1 if it is not there.
        after: its position in the second network, -1 if it is not there.
        what: what differs in a changed node, such as `attributes`.
    """

    kind: str
    before: int
    after: int
    what: tuple[str, ...] = ()


def changes(first: Network, second: Network) -> list[Change]:
    """Returns the nodes of both networks in order; a node is the same where module and op are."""
    left, right = first.nodes, second.nodes
    before, after = ([(node.module_path, node.op.name) for node in nodes] for nodes in (left, right))
    found: list[Change] = []
    for kind, i, end, j, stop in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            pairs = zip(range(i, end), range(j, stop), strict=True)
            found += [_pair(a, b, left[a], right[b]) for a, b in pairs]
        else:
            # By module, so that what replaces a node stands behind it.
            for path in dict.fromkeys(node.module_path for node in (*left[i:end], *right[j:stop])):
                found += [Change(REMOVED, a, -1) for a in range(i, end) if left[a].module_path == path]
                found += [Change(ADDED, -1, b) for b in range(j, stop) if right[b].module_path == path]
    return found


def diff_text(first: Network, second: Network, found: Sequence[Change]) -> str:
    """Returns lines that begin with -, + or ~, by module; and a count."""
    lines = list(_lines(first, second, found))
    counts = ", ".join(f"{sum(each.kind == kind for each in found)} {kind}" for kind in (SAME, CHANGED, REMOVED, ADDED))
    return "\n".join([f"# {counts}", *lines])


def _lines(first: Network, second: Network, found: Sequence[Change]) -> Iterator[str]:
    from atb_core.graph.printing import node_text, tensor_names

    before, after = tensor_names(first), tensor_names(second)
    path: str | None = None
    for kind, i, j, what in found:
        if kind == SAME:
            continue
        here = second.nodes[j] if j >= 0 else first.nodes[i]
        if here.module_path != path:
            path = here.module_path
            yield f"  # {path or '(no module)'}"
        if i >= 0:
            yield f"- {node_text(first.nodes[i], before)}"
        if j >= 0:
            yield f"+ {node_text(second.nodes[j], after)}" + (f"  ~ {', '.join(what)}" if what else "")


def _pair(i: int, j: int, first: Node, second: Node) -> Change:
    what = []
    if first.op.attributes() != second.op.attributes():
        what.append("attributes")
    for name in ("inputs", "outputs"):
        left, right = ([(str(t.shape), t.dtype) for t in getattr(node, name)] for node in (first, second))
        if left != right:
            what.append(name)
    if first.cut_after != second.cut_after:
        what.append("segment")
    return Change(CHANGED if what else SAME, i, j, tuple(what))
