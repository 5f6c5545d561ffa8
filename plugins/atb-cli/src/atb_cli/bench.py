# SPDX-License-Identifier: Apache-2.0
"""`atb bench`: the group that packages add their measurements to."""

from __future__ import annotations

import click

from atb_cli.plugin_commands import CommandGroup


@click.group("bench", cls=CommandGroup, prefix="bench ", modules={}, short_help="Measure how fast models answer.")
def command() -> None:
    """Measure how fast models answer: in this process, or behind a server."""
