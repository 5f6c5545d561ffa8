# SPDX-License-Identifier: Apache-2.0
"""Declares the hooks, which a module in the entry-point group `atb_core.plugins` implements.

    from atb_core.plugins import hookimpl

    @hookimpl
    def atb_fusion_passes():
        return [Pass("ScaleAdd", Fusion(pattern, replacement))]

Every hook takes nothing and returns a list. Each implementation is called once in a process: when its kind is first
needed or, if it is registered after that, at once (pluggy's "historic" hooks).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from atb_core.checkpoint.formats import CheckpointFormat
    from atb_core.checkpoint.quant_schemes import QuantScheme
    from atb_core.checkpoint.sources.base import Source
    from atb_core.engine import BackendMaker
    from atb_core.features.adapters import AdapterManager
    from atb_core.features.base import FeatureDecorator
    from atb_core.graph.custom_ops import OpContribution
    from atb_core.graph.passes import Pass
    from atb_core.models.graph_builders import GraphBuilder
    from atb_core.runner.drafting import DraftMethod
    from atb_core.runner.tool_calls import ToolParser

PROJECT = "atb_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def atb_fusion_passes() -> list[Pass]:  # type: ignore[empty-body]
    """Returns fusions that run after core's, for every network that is built.

    A pass whose `makes` names an op runs only for backends that have a kernel for it. `del_fpass_keys` leaves a pass
    out by its name; two passes of one name are an error.
    """


@hookspec(historic=True)
def atb_ops() -> list[OpContribution]:  # type: ignore[empty-body]
    """Returns custom ops, with kernels for the backends that they name or a form in core's ops."""


@hookspec(historic=True)
def atb_functions() -> list[Callable[..., Any]]:  # type: ignore[empty-body]
    """Returns functions that `atb_core.nn.functional` then has under their own names."""


@hookspec(historic=True)
def atb_features() -> list[type[FeatureDecorator]]:  # type: ignore[empty-body]
    """Returns features for any model, by name: `ModelRunner(path, features=["name"])`, `--feature name`."""


@hookspec(historic=True)
def atb_adapters() -> list[type[AdapterManager]]:  # type: ignore[empty-body]
    """Returns the manager of adapters with the features that run them, which every model has; one may be installed."""


@hookspec(historic=True)
def atb_backends() -> list[BackendMaker]:  # type: ignore[empty-body]
    """Returns backends, which `ModelRunner(backend=)` chooses by name; two of one name are an error."""


@hookspec(historic=True)
def atb_graph_builders() -> list[GraphBuilder]:  # type: ignore[empty-body]
    """Returns writers of graphs, which `ModelRunner(graph=)` chooses by name; two of one name are an error."""


@hookspec(historic=True)
def atb_cli_commands() -> list[click.Command]:  # type: ignore[empty-body]
    """Returns sub-commands of `atb`, asked for when core has no command of a name.

    A name that begins with `plugins ` or `bench ` (`plugins new`, `bench serve`) is a sub-command of that group.
    """


@hookspec(historic=True)
def atb_checkpoint_formats() -> list[CheckpointFormat]:  # type: ignore[empty-body]
    """Returns checkpoint formats, asked in turn about a path that is of none of core's."""


@hookspec(historic=True)
def atb_quant_schemes() -> list[QuantScheme]:  # type: ignore[empty-body]
    """Returns ways in which checkpoints of safetensors are quantised, by the name that the checkpoint says."""


@hookspec(historic=True)
def atb_checkpoint_sources() -> list[Source]:  # type: ignore[empty-body]
    """Returns places that checkpoints come from, asked in turn about a reference that is not on the disk."""


@hookspec(historic=True)
def atb_draft_methods() -> list[DraftMethod]:  # type: ignore[empty-body]
    """Returns ways to guess tokens, which `ModelRunner(speculative_config=)` chooses by name."""


@hookspec(historic=True)
def atb_tool_parsers() -> list[type[ToolParser]]:  # type: ignore[empty-body]
    """Returns notations of tool calls, which families name on their routers."""


HOOK_NAMES = tuple(name for name in list(globals()) if name.startswith("atb_"))
