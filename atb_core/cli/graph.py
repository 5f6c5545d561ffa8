# SPDX-License-Identifier: Apache-2.0
"""`atb graph`: a model's networks as text or picture, before and after the passes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from atb_core.cli.options import model_argument
from atb_core.cli.output import note, say
from atb_core.cli.show import open_model
from atb_core.errors import AtbError
from atb_core.names import BACKENDS

if TYPE_CHECKING:
    from atb_core.graph import Network, Node

_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")
Span = tuple[int, int | None]
_TARGET: Final = click.Path(dir_okay=False, path_type=Path, allow_dash=True)


def _layers(_ctx: click.Context, _param: click.Parameter, value: str) -> Span:
    """Parses `A:B`, as in Python with open ends allowed, or `N` for one layer."""
    match = re.fullmatch(r"(\d*):(\d*)|(\d+)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a layer such as 0 nor a range such as 0:2 or :")
    if match[3] is not None:
        return int(match[3]), int(match[3]) + 1
    return int(match[1] or 0), int(match[2]) if match[2] else None


@click.command()
@model_argument
@click.option("--variant", type=click.Choice(["prefill", "decode", "mixed"]), default="decode", show_default=True,
              help="Which network of the model.")  # fmt: skip
@click.option("--stage", type=click.Choice(["before", "after", "both"]),
              help="Before the passes or after them. [default: both as text, after as a picture]")  # fmt: skip
@click.option("--layers", callback=_layers, default="0", show_default=True, metavar="A:B",
              help="Decoder layers to show, with what is outside of all layers; ':' shows all.")  # fmt: skip
@click.option("--backend", type=click.Choice(BACKENDS), default="cpu", show_default=True,
              help="The engine that the graph is prepared for.")  # fmt: skip
@click.option("--dot", type=_TARGET, help="Write a picture as DOT text to a file; '-' is the standard output.")
@click.option("--svg", type=_TARGET, help="Write a picture as SVG, likewise; needs Graphviz's program dot.")
def command(
    model: str, variant: str, stage: str | None, layers: Span, backend: str, dot: Path | None, svg: Path | None
) -> None:
    """Print the graph that MODEL records, or draw it. No weights are loaded."""
    drawing = dot is not None or svg is not None
    if drawing and stage == "both":
        raise click.UsageError("a picture shows one stage: --stage before or --stage after")
    stages = networks(model, variant, backend)
    wanted = ("before", "after") if stage == "both" or (stage is None and not drawing) else (stage or "after",)
    for name in wanted:
        network = stages[name]
        nodes = chosen_nodes(network, layers)
        if drawing:
            _draw(network, nodes, dot, svg)
        else:
            say(_text(network, nodes, name))


def networks(model: str, variant: str, backend: str) -> dict[str, Network]:
    """Returns the network of `variant` as recorded ("before") and as `backend` gets it ("after")."""
    built = open_model(model).build(backend)
    if variant == "mixed":
        built.check_mixed_steps()
    key = frozenset((variant,))
    return {"before": built.variants.network(key), "after": built.variants.prepared(key)}


def chosen_nodes(network: Network, layers: Span) -> list[Node]:
    """Returns the nodes of some layers and those outside of all layers; AtbError if there is no such layer."""
    start, stop = layers
    matches = [(node, _LAYER.search(node.module_path)) for node in network]
    numbers = {int(match[1]) for _, match in matches if match is not None}
    wanted = {number for number in numbers if number >= start and (stop is None or number < stop)}
    if numbers and not wanted:
        raise AtbError(f"the model has no such layer; it has 0 to {max(numbers)}", hint="Choose with --layers.")
    return [node for node, match in matches if match is None or int(match[1]) in wanted]


def _text(network: Network, nodes: list[Node], stage: str) -> str:
    from atb_core.graph.printing import network_text

    total = len(network.nodes)
    shown = f"{len(nodes)} of {total} nodes, --layers : shows all" if len(nodes) < total else f"{total} nodes"
    text = network_text(network, None if len(nodes) == total else nodes)
    return f"# {stage} the passes: {shown}\n{text}\n"


def _draw(network: Network, nodes: list[Node], dot: Path | None, svg: Path | None) -> None:
    from atb_core.graph.dot import to_dot

    picture = to_dot(network, nodes)
    if dot is not None:
        _write(dot, picture)
    if svg is not None:
        _write(svg, _rendered(picture, svg))


def _write(target: Path, text: str) -> None:
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AtbError(f"{target} cannot be written: {error.strerror}", hint="Choose another place.") from None
    note(f"wrote {target}")


def _rendered(picture: str, svg: Path) -> str:
    program = shutil.which("dot")
    if program is None:
        raise AtbError(
            "an SVG is drawn by Graphviz's program dot, which is not on this machine's PATH",
            hint=f"Install Graphviz (its package is usually called graphviz), or write --dot {svg.stem}.dot and "
            "open that in any DOT viewer.",
        )
    done = subprocess.run([program, "-Tsvg"], input=picture, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise AtbError(f"dot could not draw the graph: {done.stderr}", hint="Write it with --dot and inspect it.")
    return done.stdout
