# SPDX-License-Identifier: Apache-2.0
"""`atb convert`: a model of any format as a directory with safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from atb_cli.options import model_argument
from atb_cli.output import terminal_safe
from atb_core.names import DTYPES


@click.command(short_help="Write a model as a directory with safetensors.")
@model_argument
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option("--dtype", type=click.Choice(("auto", *DTYPES)), default="auto", show_default=True,
              help="Floating type of the weights; auto takes the model's own.")  # fmt: skip
def command(model: str, out: Path, dtype: str) -> None:
    """Write MODEL, for example a .gguf file, as the directory OUT, with safetensors and the files of the tokenizer.

    Quantised weights are written dequantised. OUT must not exist, or be empty; it appears when it is complete.
    """
    from atb_cli.conversion import convert
    from atb_core.checkpoint import open_checkpoint
    from atb_core.graph import DataType

    convert(open_checkpoint(model), out, None if dtype == "auto" else DataType.from_short(dtype))
    click.echo(terminal_safe(str(out)))
