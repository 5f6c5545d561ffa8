# SPDX-License-Identifier: Apache-2.0
"""Passes rewrite networks. `run_passes` runs the standard pipeline for a backend.

A pass is a function Network -> Network that leaves its argument alone. After each one the result is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atb_core.errors import GraphError
from atb_core.graph.network import Network
from atb_core.graph.op import find_op
from atb_core.graph.passes.add_rms_norm import fuse_add_rms_norm
from atb_core.graph.passes.clean import fold_views, remove_dead_code, share_common
from atb_core.graph.passes.merge_linears import merge_linears
from atb_core.graph.passes.split_linear import fuse_split_linear
from atb_core.graph.passes.swiglu import fuse_swiglu
from atb_core.graph.verify import verify

PassFunction: TypeAlias = Callable[[Network], Network]


@dataclass(frozen=True)
class Pass:
    """A named pass; a fusion also names the op it makes, and runs only where the backend has that op."""

    name: str
    run: PassFunction
    makes: str | None = None


_CLEAN_UP = (
    Pass("FoldViews", fold_views),
    Pass("ShareCommon", share_common),
    Pass("RemoveDeadCode", remove_dead_code),
)
# SwiGLU comes first: it takes the Split that SplitLinear would otherwise claim.
_fusions: list[Pass] = [
    Pass("SwigluWeightPack", fuse_swiglu, "Activation"),
    Pass("AddRmsNorm", fuse_add_rms_norm, "AddRmsNorm"),
    Pass("SplitLinear", fuse_split_linear, "SplitLinear"),
    Pass("MergedLinear", merge_linears, "MergedLinear"),
]


def fusion_names() -> tuple[str, ...]:
    """Names that `build_engine(del_fpass_keys=...)` knows."""
    return tuple(fusion.name for fusion in _fusions)


def register_fusion(name: str, run: PassFunction, makes: str | None = None) -> None:
    """Adds a fusion at the end of the pipeline; GraphError if the name is taken."""
    if name in fusion_names():
        raise GraphError(f"a fusion pass called {name!r} is registered already")
    _fusions.append(Pass(name, run, makes))


def pipeline(backend: str, leave_out: Sequence[str] | None = None) -> list[Pass]:
    """The passes for a backend, in order, without those left out ("All": every fusion)."""
    out = set(leave_out or ())
    unknown = out - {"All", *fusion_names()}
    if unknown:
        raise GraphError(
            f"no fusion pass is called {', '.join(sorted(unknown))}",
            hint=f"known: All, {', '.join(fusion_names())}",
        )
    fusions = [
        fusion
        for fusion in _fusions
        if "All" not in out
        and fusion.name not in out
        and (fusion.makes is None or backend in find_op(fusion.makes).backends)
    ]
    return [*_CLEAN_UP, *fusions, _CLEAN_UP[-1]]


def run_passes(network: Network, backend: str, leave_out: Sequence[str] | None = None) -> Network:
    """`network` after the standard pipeline, verified after each pass; the argument is not changed."""
    verify(network)
    for step in pipeline(backend, leave_out):
        network = step.run(network)
        verify(network, after=step.name)
    return network


__all__ = ["Pass", "fusion_names", "pipeline", "register_fusion", "run_passes"]
