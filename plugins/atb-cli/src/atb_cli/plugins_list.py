# SPDX-License-Identifier: Apache-2.0
"""`atb plugins list`: every installed plugin and its status, from metadata alone."""

from __future__ import annotations

import json
from typing import Any

import click

from atb_cli.output import note, say, table
from atb_core.names import pip_install
from atb_core.plugins.admission import refusal
from atb_core.plugins.records import Refusal
from atb_core.plugins.scan import Installed, installed


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with entry points, requirements and next steps.")
def command(as_json: bool) -> None:
    """List the installed plugins, usable or not; imports none of them.

    A plugin that is ok here may still fail to import; `atb plugins doctor` tries.
    """
    plugins = [(plugin, refusal(plugin)) for plugin in installed()]
    if as_json:
        click.echo(json.dumps([_as_json(plugin, refused) for plugin, refused in plugins], indent=2))
        return
    if not plugins:
        click.echo(f"No plugin is installed. {pip_install('atb-qwen2')} is one; `atb plugins new` writes one.")
        return
    rows = [_row(plugin, refused) for plugin, refused in plugins]
    say(table(("PACKAGE", "VERSION", "STATUS", "SERVES", "HOOKS", "PATH"), rows))
    for plugin, refused in plugins:
        if refused is not None:
            note(f"{plugin.package} {refused.reason}. Next: {refused.fix}")


def _row(plugin: Installed, refused: Refusal | None) -> tuple[str, ...]:
    serves, hooks = ", ".join(plugin.model_types), ", ".join(plugin.hook_modules)
    status = "ok" if refused is None else refused.status.value
    return plugin.distribution, plugin.version or "-", status, serves or "-", hooks or "-", str(plugin.path)


def _as_json(plugin: Installed, refused: Refusal | None) -> dict[str, Any]:
    return {
        "distribution": plugin.distribution,
        "version": plugin.version,
        "summary": plugin.summary,
        "status": "ok" if refused is None else refused.status.value,
        "reason": "" if refused is None else refused.reason,
        "fix": None if refused is None else refused.fix,
        "model_types": list(plugin.model_types),
        "hook_modules": list(plugin.hook_modules),
        "api_versions": list(plugin.api_versions),
        "requires": list(plugin.requires),
        "path": str(plugin.path),
        "shadowed": [str(path) for path in plugin.shadowed],
        "entry_points": [{"group": e.group, "name": e.name, "value": e.value} for e in plugin.entries],
    }
