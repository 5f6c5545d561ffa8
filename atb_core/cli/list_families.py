# SPDX-License-Identifier: Apache-2.0
"""`atb list`: the installed model families, from package metadata alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from atb_core.cli.output import table

if TYPE_CHECKING:
    from atb_core.plugins import Family


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the model families that are installed; imports none of them."""
    from atb_core.plugins import families

    installed = families()
    if as_json:
        click.echo(json.dumps([asdict(family) for family in installed], indent=2))
        return
    if not installed:
        click.echo("No model family is installed. Families are packages; pip install atb-qwen2 is one.")
        return
    rows = [(family.model_type, family.distribution, family.version, family.summary) for family in installed]
    click.echo(table(("MODEL TYPE", "PACKAGE", "VERSION", "SERVES"), rows))
    for model_type in _contested(installed):
        click.echo(f"warning: several packages serve {model_type}; uninstall all but one", err=True)


def _contested(installed: list[Family]) -> list[str]:
    types = [family.model_type for family in installed]
    return sorted({model_type for model_type in types if types.count(model_type) > 1})
