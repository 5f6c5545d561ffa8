# SPDX-License-Identifier: Apache-2.0
"""Flags that may stand anywhere on the line and must be known before anything is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

_NO_PLUGINS: Final = "--no-plugins"
_VARIABLE: Final = "ATB_NO_PLUGINS"


def take_no_plugins(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Removes `--no-plugins[=NAME]` wherever it stands before a `--`; returns the rest and the names.

    Without a name it is `all`.

    Raises:
        click.UsageError: an equals sign and no name.
    """
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


def leave_out_plugins(names: Sequence[str]) -> None:
    """Adds `names` to the packages that this process, and every process that it starts, leaves out."""
    if names:
        os.environ[_VARIABLE] = ",".join([*filter(None, [os.environ.get(_VARIABLE)]), *names])
