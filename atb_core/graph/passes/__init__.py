# SPDX-License-Identifier: Apache-2.0
"""Passes that rewrite networks; `run_passes` runs the standard pipeline for a backend.

A pass is a function from a network to a network that does not change its argument. The result of each pass is verified.
Plugins add fusions with the hook `atb_fusion_passes`; they run after those of the core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atb_core.errors import GraphError, PluginError
from atb_core.extensions import Contribution, Extensions
from atb_core.graph.custom_ops import check_runnable, find_op, supports
from atb_core.graph.network import Network
from atb_core.graph.passes.clean import fold_views, remove_dead_code, share_common
from atb_core.graph.passes.expand import expand_custom
from atb_core.graph.passes.fusions import fuse_add_rms_norm, fuse_linear_swiglu, fuse_swiglu
from atb_core.graph.passes.linears import fuse_split_linear, merge_linears
from atb_core.graph.passes.pattern import Fusion, Match
from atb_core.graph.verify import verify


@dataclass(frozen=True)
class Pass:
    """Named pass.

    Attributes:
        name: name by which `build_engine(del_fpass_keys=...)` leaves out a fusion.
        run: the function that rewrites a network.
        makes: op that a fusion creates; the fusion runs only on backends that have the op.
    """

    name: str
    run: Callable[[Network], Network]
    makes: str | None = None


FUSIONS: Extensions[Pass] = Extensions("atb_fusion_passes", Pass, name="name")

_CLEAN_UP = (Pass("FoldViews", fold_views), Pass("ShareCommon", share_common), Pass("RemoveDeadCode", remove_dead_code))
# SwiGLU comes first: it takes the Split that SplitLinear would otherwise claim.
_FUSIONS = (
    Pass("SwigluWeightPack", fuse_swiglu, "Activation"),
    Pass("AddRmsNorm", fuse_add_rms_norm, "AddRmsNorm"),
    Pass("SplitLinear", fuse_split_linear, "SplitLinear"),
    Pass("MergedLinear", merge_linears, "MergedLinear"),
)
# Behind those of plugins, which may look for the activation that it takes.
_LAST_FUSION = Pass("LinearSwiglu", fuse_linear_swiglu, "LinearSwiglu")
#: Names that fusions of plugins must not have.
_RESERVED = ("All", "Expand", *(step.name for step in (*_CLEAN_UP, *_FUSIONS, _LAST_FUSION)))


def fusion_names() -> tuple[str, ...]:
    """Returns the names that `build_engine(del_fpass_keys=...)` accepts, in the order in which they run."""
    return tuple(fusion.name for fusion in _fusions())


def _fusions() -> list[Pass]:
    """Returns the core's fusions, and those of plugins before the last; PluginError if two have the same name."""
    owners = dict.fromkeys(_RESERVED, "atb-core")
    fusions = list(_FUSIONS)
    for contribution in FUSIONS.all():
        fusion, owner = contribution.value, str(contribution.owner)
        if fusion.name in owners:
            raise PluginError(
                f"two fusion passes are called {fusion.name!r}: one of {owners[fusion.name]} and one of {owner}",
                hint=f"Leave one plugin out (ATB_NO_PLUGINS={contribution.owner.distribution}) and tell its author.",
            )
        owners[fusion.name] = owner
        fusions.append(Pass(fusion.name, _guarded(contribution), fusion.makes))
    return [*fusions, _LAST_FUSION]


def _guarded(contribution: Contribution[Pass]) -> Callable[[Network], Network]:
    """Returns a plugin's pass that leaves the network as it was if it fails or makes an illegal network."""
    fusion = contribution.value

    def run(network: Network) -> Network:
        # Fusions are optional: the network runs without this one, too.
        with FUSIONS.left_out_if_failing(contribution.owner, f"the fusion pass {fusion.name!r}"):
            result = fusion.run(network)
            if not isinstance(result, Network):
                raise TypeError(f"it returned {result!r}, not a Network")
            verify(result, after=fusion.name)
            return result
        return network

    return run


def pipeline(backend: str, leave_out: Sequence[str] | None = None) -> list[Pass]:
    """Returns the passes for a backend, in order, without those left out ("All": every fusion).

    A fusion may be left out under the name of ATB-Models' class too, `AddRmsNormPass`.
    """
    fusions = _fusions()
    out = {name.removesuffix("Pass") for name in leave_out or ()}
    names = ["All", *(fusion.name for fusion in fusions)]
    unknown = out - set(names)
    if unknown:
        raise GraphError(f"no fusion pass is called {', '.join(sorted(unknown))}", hint=f"Known: {', '.join(names)}.")
    kept = [] if "All" in out else [fusion for fusion in fusions if fusion.name not in out]
    supported = [fusion for fusion in kept if fusion.makes is None or supports(find_op(fusion.makes), backend)]
    expand = Pass("Expand", lambda network: expand_custom(network, backend))
    return [expand, *_CLEAN_UP, *supported, _CLEAN_UP[-1]]


def run_passes(network: Network, backend: str, leave_out: Sequence[str] | None = None) -> Network:
    """Returns the network after the standard pipeline, verified after each pass; the argument is not changed.

    Raises:
        GraphError: the backend cannot run a custom op, or a name in `leave_out` is unknown.
        PluginError: the expansion of a custom op fails.
    """
    verify(network)
    steps = pipeline(backend, leave_out)
    network = _run(network, steps)
    check_runnable(network, backend)
    if any(tensor.shape is None for tensor in network.inputs):
        # Fusions that shapes decide about run when real tensors bring the shapes.
        network.when_specialized = lambda specialized: _run(specialized, steps)
    return network


def _run(network: Network, steps: Sequence[Pass]) -> Network:
    for step in steps:
        network = step.run(network)
        verify(network, after=step.name)
    return network


__all__ = ["Fusion", "Match", "Pass", "fusion_names"]
