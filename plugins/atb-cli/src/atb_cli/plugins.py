# SPDX-License-Identifier: Apache-2.0
"""`atb plugins`: the installed plugins, what is wrong with them, and a new one."""

from __future__ import annotations

from typing import Final

import click

from atb_cli.plugin_commands import CommandGroup

# name -> module with a `command`. The order is that of `atb plugins --help`.
COMMANDS: Final = {
    "list": "atb_cli.plugins_list",
    "doctor": "atb_cli.plugins_doctor",
}


@click.group(
    "plugins", cls=CommandGroup, prefix="plugins ", modules=COMMANDS, short_help="Show, check and write plugins."
)
def command() -> None:
    """Show the installed plugins, find out why one does not work, write a new one."""
