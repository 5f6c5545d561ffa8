# SPDX-License-Identifier: Apache-2.0
"""`atb pull`: fetches a model without running it."""

from __future__ import annotations

import click

from atb_core.cli.options import model_argument
from atb_core.cli.output import note, terminal_safe
from atb_core.errors import RequestError


@click.command()
@model_argument
@click.option("--revision", help="Branch, tag or commit of a model on a hub; the same as MODEL@REVISION.")
def command(model: str, revision: str | None) -> None:
    """Fetch MODEL to this machine and print its path.

    No file is fetched twice. HF_ENDPOINT names a mirror of the hub, HF_TOKEN gives access to restricted models, HF_HOME
    is where models are kept.
    """
    from atb_core.checkpoint import open_checkpoint

    if revision is not None:
        if "@" in model or "://" in model:
            raise RequestError("--revision goes with OWNER/NAME alone", hint="Write the revision in one of the two.")
        model = f"{model}@{revision}"
    try:
        checkpoint = open_checkpoint(model)
    except KeyboardInterrupt:
        note("files that were fetched whole are kept; the same command fetches the rest")
        raise
    click.echo(terminal_safe(str(checkpoint)))
