# SPDX-License-Identifier: Apache-2.0
"""The command `atb draw`: a picture of a model's network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import click

from atb_cli.graph import Span, backend_option, chosen_nodes, layers_option, networks, variant_option
from atb_cli.options import model_argument
from atb_cli.output import note, writing
from atb_core.errors import AtbError

_TARGET: Final = click.Path(dir_okay=False, path_type=Path, allow_dash=True)


@click.command("draw")
@model_argument
@click.argument("file", type=_TARGET)
@variant_option
@click.option("--stage", type=click.Choice(["before", "after"]), default="after", show_default=True,
              help="Before the passes or after them.")  # fmt: skip
@layers_option
@backend_option
def command(model: str, file: Path, variant: str, stage: str, layers: Span, backend: str) -> None:
    """Draw the graph that MODEL records. No weights are loaded.

    FILE gets the picture: SVG if its name ends in .svg, which needs Graphviz's program dot; else DOT text, which '-'
    prints.
    """
    from atb_testing.dot import to_dot

    network = networks(model, variant, backend)[stage]
    picture = to_dot(network, chosen_nodes(network, layers))
    _write(file, _rendered(picture, file) if file.suffix.lower() == ".svg" else picture)


def _write(target: Path, text: str) -> None:
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    with writing(target):
        target.write_text(text, encoding="utf-8")
    note(f"wrote {target}")


def _rendered(picture: str, svg: Path) -> str:
    program = shutil.which("dot")
    if program is None:
        raise AtbError(
            "an SVG is drawn by Graphviz's program dot, which is not on this machine's PATH",
            hint=f"Install Graphviz (its package is usually called graphviz), or write {svg.stem}.dot and open "
            "that in any DOT viewer.",
        )
    done = subprocess.run([program, "-Tsvg"], input=picture, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise AtbError(
            f"dot could not draw the graph: {done.stderr}",
            hint="Write it as DOT, to a file with another ending, and inspect it.",
        )
    return done.stdout
