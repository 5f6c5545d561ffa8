# SPDX-License-Identifier: Apache-2.0
"""Passes rewrite networks. `run_passes` runs the standard pipeline for a backend.

A pass is a function Network -> Network that leaves its argument alone. After each one the result is verified.
Plugins add fusions with the hook `atb_fusion_passes`; they run after core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from atb_core.errors import GraphError, PluginError
from atb_core.graph.foreign_ops import check_runnable, supports
from atb_core.graph.network import Network
from atb_core.graph.op import find_op
from atb_core.graph.passes.add_rms_norm import fuse_add_rms_norm
from atb_core.graph.passes.clean import fold_views, remove_dead_code, share_common
from atb_core.graph.passes.expand import expand_foreign
from atb_core.graph.passes.merge_linears import merge_linears
from atb_core.graph.passes.pattern import Fusion, Match
from atb_core.graph.passes.split_linear import fuse_split_linear
from atb_core.graph.passes.swiglu import fuse_swiglu
from atb_core.graph.verify import verify
from atb_core.plugins import hooks

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
_FUSIONS = (
    Pass("SwigluWeightPack", fuse_swiglu, "Activation"),
    Pass("AddRmsNorm", fuse_add_rms_norm, "AddRmsNorm"),
    Pass("SplitLinear", fuse_split_linear, "SplitLinear"),
    Pass("MergedLinear", merge_linears, "MergedLinear"),
)
#: Names that stand for something else where passes are left out.
_RESERVED = ("All", "Expand", *(step.name for step in _CLEAN_UP))


def fusion_names() -> tuple[str, ...]:
    """Names that `build_engine(del_fpass_keys=...)` knows, those of plugins last."""
    return tuple(fusion.name for fusion in _fusions())


def _fusions() -> list[Pass]:
    """Core's fusions, then those of plugins; PluginError, naming both owners, for two of one name."""
    owners = {**dict.fromkeys(_RESERVED, "atb-core"), **{fusion.name: "atb-core" for fusion in _FUSIONS}}
    found = list(_FUSIONS)
    for offer in hooks.fusion_passes():
        fusion, owner = offer.value, str(offer.owner)
        if fusion.name in owners:
            raise PluginError(
                f"two fusion passes are called {fusion.name!r}: one of {owners[fusion.name]} and one of {owner}",
                hint=f"Leave one plugin out (ATB_NO_PLUGINS={offer.owner.distribution}) and tell its author.",
            )
        owners[fusion.name] = owner
        found.append(Pass(fusion.name, _guarded(offer), fusion.makes))
    return found


def _guarded(offer: hooks.Offered[Pass]) -> PassFunction:
    """The pass of a plugin; where it fails or makes an illegal network, the network stays as it was."""

    def run(network: Network) -> Network:
        try:
            result = offer.value.run(network)
            if not isinstance(result, Network):
                raise TypeError(f"it returned {result!r}, not a Network")
            verify(result, after=offer.value.name)
        # A plugin is foreign code, and fusions change no results: without this one everything runs as well.
        except Exception as error:
            hooks.failed(offer.owner, f"the fusion pass {offer.value.name!r}", error)
            return network
        return result

    return run


def pipeline(backend: str, leave_out: Sequence[str] | None = None) -> list[Pass]:
    """The passes for a backend, in order, without those left out ("All": every fusion)."""
    out, known = set(leave_out or ()), _fusions()
    names = [fusion.name for fusion in known]
    unknown = out - {"All", *names}
    if unknown:
        raise GraphError(
            f"no fusion pass is called {', '.join(sorted(unknown))}",
            hint=f"known: All, {', '.join(names)}",
        )
    fusions = [
        fusion
        for fusion in known
        if "All" not in out
        and fusion.name not in out
        and (fusion.makes is None or supports(find_op(fusion.makes), backend))
    ]
    expand = Pass("Expand", lambda network: expand_foreign(network, backend))
    return [expand, *_CLEAN_UP, *fusions, _CLEAN_UP[-1]]


def run_passes(network: Network, backend: str, leave_out: Sequence[str] | None = None) -> Network:
    """`network` after the standard pipeline, verified after each pass; the argument is not changed.

    GraphError for an op from outside of core that the backend cannot run.
    """
    verify(network)
    for step in pipeline(backend, leave_out):
        network = step.run(network)
        verify(network, after=step.name)
    check_runnable(network, backend)
    return network


__all__ = ["Fusion", "Match", "Pass", "fusion_names", "pipeline", "run_passes"]
