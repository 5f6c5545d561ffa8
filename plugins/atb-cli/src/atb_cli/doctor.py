# SPDX-License-Identifier: Apache-2.0
"""`atb doctor`: the backends that this machine can use, and what is missing or does not match."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from atb_ascend.findings import Level
from atb_cli.output import json_option, say, table
from atb_core.names import BACKENDS

if TYPE_CHECKING:
    from atb_ascend import Report


@click.command("doctor", short_help="Find out which backends this machine can use.")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Find out which backends this machine can use, and what the others lack.

    Looks for the NPU's driver and devices, CANN, ATB, torch and torch_npu, compares their versions, tries to load
    the libraries and to import torch_npu, and looks at the environment variables that are switches. The exit status
    is 1 if the CPU engine does not work, or if something that is installed is broken or does not match; what is absent
    is no error.
    """
    from atb_ascend import examine

    report = examine()
    if as_json:
        click.echo(json.dumps(_as_json(report), indent=2))
    else:
        say("\n".join(_lines(report)))
    if not report.healthy:
        ctx.exit(1)


def _as_json(report: Report) -> dict[str, object]:
    lacks = {backend: [finding.check for finding in report.missing(backend)] for backend in BACKENDS}
    backends = {backend: {"usable": not missing, "missing": missing} for backend, missing in lacks.items()}
    findings = [asdict(finding) for finding in report.findings]
    return {"healthy": report.healthy, "backends": backends, "findings": findings}


def _lines(report: Report) -> Iterator[str]:
    """Returns the outcome, then what was found, then what to do about it."""
    for backend in BACKENDS:
        missing = report.missing(backend)
        absent = all(finding.level is Level.ABSENT for finding in missing)
        reasons = "; ".join(f"{finding.cause}" if absent else f"see {finding.check}" for finding in missing)
        yield f"backend {backend}: {f'cannot be used: {reasons}' if missing else 'can be used'}"
        # What is absent has no paragraph of its own.
        yield from (f"  next: {finding.fix}" for finding in missing if absent and finding.fix)
    rows = [(finding.check, finding.level.value, finding.message) for finding in report.findings]
    yield "\n" + table(("CHECK", "STATUS", "FOUND"), rows)
    for finding in report.findings:
        if finding.cause and finding.level is not Level.ABSENT:
            yield f"\n{finding.check}: {finding.level.value}: {finding.cause}"
            if finding.fix:
                yield f"  next: {finding.fix}"
