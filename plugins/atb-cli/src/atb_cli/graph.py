# SPDX-License-Identifier: Apache-2.0
"""`atb graph`: a model's networks as text, before and after the passes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from atb_cli.options import model_argument
from atb_cli.output import say
from atb_cli.show import open_model
from atb_core.errors import AtbError
from atb_core.names import BACKENDS

if TYPE_CHECKING:
    from atb_core.graph import Network, Node

_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")
Span = tuple[int, int | None]


def _layers(_ctx: click.Context, _param: click.Parameter, value: str) -> Span:
    """Parses `A:B`, as in Python with open ends allowed, or `N` for one layer."""
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a layer such as 0 nor a range such as 0:2 or :")
    if match[3] is not None:
        return int(match[3]), int(match[3]) + 1
    return int(match[1] or 0), int(match[2]) if match[2] else None


variant_option = click.option("--variant", type=click.Choice(["prefill", "decode", "mixed"]), default="decode",
                              show_default=True, help="Which network of the model.")  # fmt: skip
features_option = click.option("--features", default="", metavar="A,B",
                               help="Features of the variant, such as multi_lora; those that the model has, or of"
                               " plugins.")  # fmt: skip
layers_option = click.option("--layers", callback=_layers, default="0", show_default=True, metavar="A:B",
                             help="Decoder layers to show, with what is outside of them; ':' shows all.")  # fmt: skip
backend_option = click.option("--backend", type=click.Choice(BACKENDS), default="cpu", show_default=True,
                              help="The engine that the graph is prepared for.")  # fmt: skip


@click.command()
@model_argument
@variant_option
@features_option
@click.option("--stage", type=click.Choice(["before", "after", "both"]), default="both", show_default=True,
              help="Before the passes or after them.")  # fmt: skip
@layers_option
@backend_option
def command(model: str, variant: str, features: str, stage: str, layers: Span, backend: str) -> None:
    """Print the graph that MODEL records. No weights are loaded."""
    stages = networks(model, variant, backend, [name.strip() for name in features.split(",") if name.strip()])
    for name in ("before", "after") if stage == "both" else (stage,):
        say(_text(stages[name], chosen_nodes(stages[name], layers), name))


def networks(model: str, variant: str, backend: str, features: Sequence[str] = ()) -> dict[str, Network]:
    """Returns the network of `variant` as recorded ("before") and as `backend` gets it ("after").

    Raises:
        RequestError: There is no such feature.
        EngineError: The features do not stack; tells the reason.
    """
    built = open_model(model).build(backend, features)
    if variant == "mixed":
        built.check_mixed_steps()
    key = built.variants.key(variant, built.features_called(features))
    return {"before": built.variants.network(key), "after": built.variants.prepared(key)}


def chosen_nodes(network: Network, layers: Span) -> list[Node]:
    """Returns the nodes of some layers and those outside of all layers; AtbError if there is no such layer."""
    start, stop = layers
    matches = [(node, _LAYER.search(node.module_path)) for node in network]
    numbers = {int(match[1]) for _, match in matches if match is not None}
    wanted = {number for number in numbers if number >= start and (stop is None or number < stop)}
    if numbers and not wanted:
        last = max(numbers)
        given = str(start) if stop == start + 1 else f"{start}:{'' if stop is None else stop}"
        hint = f"For example --layers {last}, --layers 0:2, or --layers : for all."
        raise AtbError(f"--layers {given} chooses none: the model has the layers 0 to {last}", hint=hint)
    return [node for node, match in matches if match is None or int(match[1]) in wanted]


def _text(network: Network, nodes: list[Node], stage: str) -> str:
    from atb_core.graph.printing import network_text

    total = len(network.nodes)
    shown = f"{len(nodes)} of {total} nodes, --layers : shows all" if len(nodes) < total else f"{total} nodes"
    text = network_text(network, None if len(nodes) == total else nodes)
    return f"# {stage} the passes: {shown}\n{text}\n"
