# SPDX-License-Identifier: Apache-2.0
"""Groups of commands: modules that are imported when a command is looked up, and commands of plugins."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from atb_core.errors import PluginError
from atb_core.extensions import Contribution, Extensions
from atb_core.names import pip_install
from atb_core.plugin_errors import plugin_error
from atb_core.plugins.admission import refusal
from atb_core.plugins.scan import HOOKS, installed

#: Commands of other packages of this project: name -> what to install. Read only where no command of the name exists.
KNOWN_COMMANDS: Final = {
    "serve": "atb-serve",
    "bench latency": "atb-profile",
    "bench throughput": "atb-profile",
    "bench serve": "atb-serve",
    "profile": "atb-profile",
    "estimate": "atb-profile",
    "verify": "atb-testing",
    "draw": "atb-testing",
    "dump": "atb-testing",
    "compare": "atb-testing",
    "ascend": "atb-testing",
    "plugins new": "atb-testing[scaffold]",
}

#: What other programs call a command: name -> what does it here.
_MEANT: Final = {
    "help": "atb --help",
    "ls": "atb models",
    "ps": "atb models",
    "download": "atb pull",
    "delete": "atb rm",
}


COMMANDS: Extensions[click.Command] = Extensions("atb_cli_commands", click.Command, name="name")


class LazyGroup(click.Group):
    """A group that imports the module of a command when the command is looked up.

    Args:
        modules: name -> module with a `command`, in the order of the help.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command, `None` if the group has none of the name."""
        if cmd_name not in self.modules:
            return None
        command = importlib.import_module(self.modules[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


class CommandGroup(LazyGroup):
    """This package's commands, and those of plugins. Help and completion list the former alone and import no plugin.

    Args:
        prefix: Beginning of the names of contributed commands: `"plugins "` for those of `atb plugins`.
    """

    def __init__(self, *args: Any, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefix = prefix

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command of this package or of a plugin; PluginError if the package of a known one is missing."""
        if command := super().get_command(ctx, cmd_name):
            return command
        name = self.prefix + cmd_name
        command = plugin_command(name, frozenset(self.prefix + module for module in self.modules))
        if command is None and name in KNOWN_COMMANDS and not ctx.resilient_parsing:
            raise _missing(name, KNOWN_COMMANDS[name])
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command that a line names; UsageError with the one that was meant if there is none."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            known = [one.removeprefix(self.prefix) for one in KNOWN_COMMANDS if one.startswith(self.prefix)]
            names = [*self.list_commands(ctx), *known]
            close = _MEANT.get(self.prefix + name) or next(iter(difflib.get_close_matches(name, names)), None)
            ctx.fail(
                f"No such command {name!r}. "
                + (f"Did you mean {close}?" if close else f"There are: {', '.join(names)}.")
            )
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Ends the help with the packages whose hooks may add commands, from metadata alone."""
        super().format_epilog(ctx, formatter)
        known = [f"atb {name} ({pip})" for name, pip in KNOWN_COMMANDS.items() if name.startswith(self.prefix)]
        formatter.write_paragraph()
        which = "Further commands" if self.modules else "Commands"
        formatter.write_text(f"{which}, with the package of each: {', '.join(known)}.")
        with_hooks = [one for one in installed() if any(entry.group == HOOKS for entry in one.entries)]
        if packages := [one.package for one in with_hooks if refusal(one) is None]:
            formatter.write_paragraph()
            formatter.write_text(f"Packages that may add commands: {', '.join(packages)}.")


def plugin_command(name: str, own: frozenset[str]) -> click.Command | None:
    """Returns the command `name` of a plugin, `None` if no plugin has it; PluginError if several have.

    Args:
        name: Name of the command.
        own: Names of this package's commands; a plugin's command of such a name is left out with a warning.
    """
    for each in COMMANDS.all():
        if each.value.name in own:
            shadow = PluginError(f"`atb {each.value.name}` is a command of atb-cli")
            COMMANDS.failed(each.owner, f"the command {each.value.name!r}", shadow)
    contribution = COMMANDS.named(name, f"the command {name!r}")
    return None if contribution is None else _guarded(contribution)


def _missing(name: str, requirement: str) -> PluginError:
    """Returns the error for a known command whose package is not installed, not usable, or failed."""
    package = requirement.partition("[")[0]
    prefix = f"`atb {name}` comes with {package}, which"
    plugin = next((one for one in installed() if one.key == package), None)
    if plugin is None:
        return PluginError(f"{prefix} is not installed", hint=pip_install(requirement))
    if refused := refusal(plugin):
        return PluginError(f"{prefix} {refused.reason}", hint=refused.fix)
    return PluginError(f"{prefix} is installed but has no such command", hint="`atb plugins doctor` says why.")


@functools.cache
def _guarded(contribution: Contribution[click.Command]) -> click.Command:
    """Returns the contributed command; what it raises, but for click's own and an exit, is told as the plugin's."""
    command = contribution.value
    invoke: Callable[..., Any] = command.invoke

    @functools.wraps(invoke)
    def guarded(ctx: click.Context) -> Any:
        try:
            return invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except SystemExit as end:  # a command may end the program so
            if isinstance(end.code, str):
                raise click.ClickException(end.code) from end
            ctx.exit(end.code or 0)
        except BaseException as error:
            if failure := plugin_error(error, contribution.owner):
                raise failure from error
            raise

    command.invoke = guarded  # type: ignore[method-assign]
    return command
