# SPDX-License-Identifier: Apache-2.0
"""The hooks: what a module in the entry-point group `atb_core.plugins` may define to add more than a family.

    from atb_core.plugins import hookimpl

    @hookimpl
    def atb_fusion_passes():
        return [Pass("ScaleAdd", Fusion(pattern, replacement))]

Every hook takes nothing and returns a list. All are historic: each implementation is called once a process, when
its kind is first needed, or as it is registered if that has been before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from atb_core.checkpoint.custom import WeightFormat
    from atb_core.checkpoint.sources.base import Source
    from atb_core.features.base import FeatureDecorator
    from atb_core.graph.custom_ops import OpContribution
    from atb_core.graph.passes import Pass
    from atb_core.runner.tool_calls import ToolParser

PROJECT = "atb_core"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def atb_fusion_passes() -> list[Pass]:  # type: ignore[empty-body]
    """Fusions that join the pipeline after core's, for every network that is built.

    A pass whose `makes` names an op runs only for backends that have a kernel for it. Its name can be left out
    with `del_fpass_keys`; two passes of one name are an error.
    """


@hookspec(historic=True)
def atb_ops() -> list[OpContribution]:  # type: ignore[empty-body]
    """Custom ops, with kernels for the backends that they name or a form in core's ops."""


@hookspec(historic=True)
def atb_features() -> list[type[FeatureDecorator]]:  # type: ignore[empty-body]
    """Features that can be put on any model by name: `ModelRunner(path, features=["name"])`, `--feature name`."""


@hookspec(historic=True)
def atb_cli_commands() -> list[click.Command]:  # type: ignore[empty-body]
    """Sub-commands of `atb`. They are looked for when a command is asked for that core does not have."""


@hookspec(historic=True)
def atb_weight_formats() -> list[WeightFormat]:  # type: ignore[empty-body]
    """Checkpoint formats, asked in turn about a path that is of none of core's."""


@hookspec(historic=True)
def atb_checkpoint_sources() -> list[Source]:  # type: ignore[empty-body]
    """Places that checkpoints come from, asked in turn about a reference that is not on the disk."""


@hookspec(historic=True)
def atb_tool_parsers() -> list[type[ToolParser]]:  # type: ignore[empty-body]
    """Notations of tool calls, which families name on their routers."""


HOOK_NAMES = tuple(name for name in list(globals()) if name.startswith("atb_"))
