# SPDX-License-Identifier: Apache-2.0
"""Declares the hooks, which a module in the entry-point group `atb_core.plugins` implements.

    from atb_core.plugins import hookimpl

    @hookimpl
    def atb_fusion_passes():
        return [Pass("ScaleAdd", Fusion(pattern, replacement))]

Every hook takes nothing and returns a list. Each implementation is called once in a process: when its kind is first
needed or, if it is registered after that, at once (pluggy's "historic" hooks). docs/hooks.md has an example of each.
"""

from __future__ import annotations

import pluggy

#: The type of the items that each hook returns, and what they are.
HOOKS = {
    "atb_fusion_passes": ("Pass", "fusions that run after core's, for every network that is built"),
    "atb_ops": ("OpContribution", "custom ops, with kernels for the backends that they name or a form in core's ops"),
    "atb_functions": ("Callable[..., Any]", "what `atb_core.nn.functional` then has under the functions' own names"),
    "atb_features": ("type[FeatureDecorator]", "features for any model, by name: `ModelRunner(path, features=[name])`"),
    "atb_adapters": ("type[AdapterManager]", "the manager of adapters, with the features that run them; one at most"),
    "atb_backends": ("BackendMaker", "backends, which `ModelRunner(backend=)` chooses by name"),
    "atb_graph_builders": ("GraphBuilder", "writers of graphs, which `ModelRunner(graph=)` chooses by name"),
    # A name that begins with `plugins ` or `bench ` (`bench serve`) is a sub-command of that group.
    "atb_cli_commands": ("click.Command", "sub-commands of `atb`, asked for when core has no command of a name"),
    "atb_checkpoint_formats": ("CheckpointFormat", "formats, asked in turn about a path that is of none of core's"),
    "atb_quant_schemes": (
        "QuantScheme",
        "ways in which safetensors are quantised, by the name that the checkpoint says",
    ),
    "atb_checkpoint_sources": (
        "Source",
        "places of checkpoints, asked in turn about a reference that is not on the disk",
    ),
    "atb_draft_methods": (
        "DraftMethod",
        "ways to guess tokens, which `ModelRunner(speculative_config=)` chooses by name",
    ),
    "atb_tool_parsers": ("type[ToolParser]", "notations of tool calls, which families name on their routers"),
}
PROJECT = "atb_core"
hookimpl = pluggy.HookimplMarker(PROJECT)
#: The hooks in the form in which pluggy takes them.
SPECS = type("Hooks", (), dict.fromkeys(HOOKS, pluggy.HookspecMarker(PROJECT)(lambda: None, historic=True)))
