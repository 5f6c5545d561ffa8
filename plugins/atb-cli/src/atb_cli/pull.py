# SPDX-License-Identifier: Apache-2.0
"""`atb pull`: fetches a model without running it."""

from __future__ import annotations

import click

from atb_cli.options import model_argument
from atb_cli.output import note, terminal_safe


@click.command()
@model_argument
def command(model: str) -> None:
    """Fetch MODEL to this machine and print its path.

    No file is fetched twice. HF_ENDPOINT names a mirror of the hub, HF_TOKEN gives access to restricted models, HF_HOME
    is where models are kept.
    """
    from atb_core.checkpoint import open_checkpoint

    try:
        checkpoint = open_checkpoint(model)
    except KeyboardInterrupt:
        note("files that were fetched whole are kept; the same command fetches the rest")
        raise
    click.echo(terminal_safe(str(checkpoint)))
