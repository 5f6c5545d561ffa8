# SPDX-License-Identifier: Apache-2.0
"""`atb list`: the installed model families that can be used, from package metadata alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import Final

import click

from atb_cli.output import json_option, note, plugins_text, say, table
from atb_core.names import pip_install
from atb_core.plugins.admission import check_names, refusal
from atb_core.plugins.records import Status
from atb_core.plugins.registry import Family, Resolution, registry
from atb_core.plugins.scan import installed

# More claims are counted: a package may have thousands.
_CONTESTS: Final = 10
_WORDS: Final = {Status.DISABLED: "disabled", Status.INCOMPATIBLE: "incompatible", Status.FAILED: "broken"}


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the model families that can be used; imports none of them.

    What is installed and cannot be used is counted on stderr; `atb plugins list` shows it.
    """
    check_names()
    usable, contested = usable_families()
    if as_json:
        click.echo(json.dumps([asdict(family) for family in usable], indent=2))
    elif usable:
        rows = [(family.model_type, family.distribution, family.version, family.summary) for family in usable]
        say(table(("MODEL TYPE", "PACKAGE", "VERSION", "SERVES"), rows))
    elif not installed():
        click.echo(f"No model family is installed. Families are packages; {pip_install('atb-qwen2')} is one.")
    else:
        click.echo("No installed model family can be used.")
    for message in contested[:_CONTESTS]:
        note(f"not listed: {message}")
    if len(contested) > _CONTESTS:
        note(f"not listed: {len(contested) - _CONTESTS} more model types that several packages claim")
    if left_out := _left_out():
        counts = ", ".join(f"{count} {_WORDS[status]}" for status, count in left_out.items())
        note(f"not listed: {plugins_text(sum(left_out.values()))} ({counts}); `atb plugins doctor` says why")


def usable_families() -> tuple[list[Family], list[str]]:
    """Returns the families that would serve a model, and an error for each type whose claims conflict."""
    usable = [family for family in registry().families() if family.status is Status.OK]
    claims = Counter(family.model_type for family in usable)
    contests = {name: registry().resolve(name) for name, count in claims.items() if count > 1}
    winners = [family for family in usable if _wins(family, contests.get(family.model_type))]
    return winners, [str(contest.error) for contest in contests.values() if contest.error is not None]


def _left_out() -> Counter[Status]:
    """Counts the plugins that cannot be used for all that they claim to serve, as far as metadata tells."""
    status = {plugin.distribution: refused.status for plugin in installed() if (refused := refusal(plugin)) is not None}
    for family in registry().families():
        if family.status is not Status.OK:
            status.setdefault(family.distribution, family.status)
    return Counter(status.values())


def _wins(family: Family, contest: Resolution | None) -> bool:
    return contest is None or (contest.winner is not None and contest.winner.distribution == family.distribution)
