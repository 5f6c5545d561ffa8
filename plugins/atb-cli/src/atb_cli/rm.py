# SPDX-License-Identifier: Apache-2.0
"""`atb rm`: removes a fetched model from this machine."""

from __future__ import annotations

import re
from difflib import get_close_matches

import click

from atb_cli.line_input import confirmed
from atb_cli.output import note, size_text
from atb_core.errors import ModelNotFoundError


@click.command()
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def command(model: str, yes: bool) -> None:
    """Remove MODEL, one of `atb models`, from its cache; asks first.

    A name without revision or version stands for all of them. Directories outside of the caches are never touched.
    """
    from atb_core.checkpoint import stored_models

    stored = stored_models()
    found = [item for item in stored if model in (item[1].reference, re.split("@|==", item[1].reference)[0])]
    if not found:
        close = get_close_matches(model, [item.reference for _, item in stored], n=3)
        hint = f"The closest: {', '.join(close)}." if close else "`atb models` lists what is there."
        raise ModelNotFoundError(f"{model} is not in the caches of this machine", hint)
    for source, item in found:
        if not yes and not confirmed(f"Remove {item.reference}, {size_text(item.nbytes)} in {item.path}?"):
            raise click.Abort
        source.remove(item)
        note(f"removed {item.reference}, {size_text(item.nbytes)}")
