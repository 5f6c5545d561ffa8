# SPDX-License-Identifier: Apache-2.0
"""`atb plugins doctor`: imports every plugin and reports what is wrong and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from atb_cli.options import finite
from atb_cli.output import plugins_text, say
from atb_core.errors import printable
from atb_core.settings import Settings, settings

if TYPE_CHECKING:
    from atb_cli.plugin_doctor import Finding, PluginReport, Report


@click.command("doctor")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with tracebacks.")
@click.option("--timeout", type=click.FloatRange(0, 1_000_000, min_open=True), callback=finite, metavar="SECONDS",
              help="How long the import of one entry point may take. [default: ATB_PLUGIN_TIMEOUT or 60]")  # fmt: skip
@click.option("--jobs", type=click.IntRange(min=1), metavar="N",
              help="How many plugins are imported at a time. [default: the number of cores, at most 4]")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...], as_json: bool, timeout: float | None, jobs: int | None) -> None:
    """Find out which plugins work: the packages NAME, by default all of them.

    Each is imported in a process of its own, one entry point after another, as it is when a model is loaded. A finding
    is an error (something does not work, and the exit status is 1), a warning, or a note.
    """
    from tqdm import tqdm

    from atb_cli.plugin_doctor import choose, examine

    plugins, used = choose(names), settings()
    with tqdm(desc="importing", total=len(plugins), unit=" plugins", leave=False, disable=None) as bar:
        report = examine(
            plugins,
            timeout=used.plugins.import_seconds if timeout is None else timeout,
            jobs=min(4, os.cpu_count() or 1) if jobs is None else jobs,
            progress=bar.update,
        )
    if as_json:
        click.echo(json.dumps(_as_json(report, used), indent=2, default=str))
    else:
        say("\n".join(printable(line, 4000) for line in _lines(report, used)))
    if not report.healthy:
        ctx.exit(1)


def _as_json(report: Report, used: Settings) -> dict[str, Any]:
    sets = {**vars(used.plugins), "only": used.plugins.only and sorted(used.plugins.only)}
    settings = {"path": used.path, "exists": used.path.is_file(), "plugins": sets}
    return {"healthy": report.healthy, "settings": settings, **asdict(report)}


def _lines(report: Report, used: Settings) -> Iterator[str]:
    """Returns the report; the worst comes last, which stays in view on a terminal."""
    yield from _settings_lines(used)
    yield from _finding_lines(report.general)
    for plugin in sorted(report.plugins, key=lambda one: (one.broken, one.warned)):
        yield from _plugin_lines(plugin)
    broken = sum(plugin.broken for plugin in report.plugins)
    warned = sum(plugin.warned and not plugin.broken for plugin in report.plugins)
    fine = len(report.plugins) - broken - warned
    yield f"{plugins_text(len(report.plugins))}: {broken} broken, {warned} with warnings, {fine} without"


def _plugin_lines(plugin: PluginReport) -> Iterator[str]:
    serves = f", serves {', '.join(plugin.model_types)}" if plugin.model_types else ""
    took = f", imported in {plugin.import_seconds:.2f} s" if plugin.import_seconds is not None else ""
    yield f"{plugin.distribution} {plugin.version}: {plugin.status.value}{serves}{took}"
    yield f"  in {plugin.path}"
    yield from _finding_lines(plugin.findings)


def _finding_lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    for finding in findings:
        yield f"  {finding.level.value}: {finding.message}"
        if finding.fix:
            yield f"    next: {finding.fix}"


def _settings_lines(used: Settings) -> Iterator[str]:
    """Returns the settings and their sources."""
    plugins = used.plugins
    yield f"settings: {used.path}{'' if used.path.is_file() else ' (not there)'}"
    if plugins.only is not None:
        yield f"  only {', '.join(sorted(plugins.only))} ({plugins.only_source})"
    for name, source in sorted(plugins.disabled.items()):
        yield f"  without {name} ({source})"
    for model_type, name in sorted(plugins.prefer.items()):
        yield f"  {model_type} is served by {name} ({plugins.prefer_sources[model_type]})"
    if plugins.strict:
        yield "  strict: a plugin that fails is an error at once"
