# SPDX-License-Identifier: Apache-2.0
"""The command `atb ascend check`: one file about a card, to send to those who have none."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atb_cli.output import note, say
from atb_core.distributions import version_of
from atb_core.errors import AtbError

if TYPE_CHECKING:
    from atb_testing.ascend.report import Case, CheckReport

_GROUPS = ("ops", "models", "faults", "benchmark")
_PACKAGES = ("torch", "torch_npu", "transformers", "numpy")
_SIMULATED = "SIMULATOR of {soc}, not a card: results say nothing about a device, and times nothing at all"


class CheckError(AtbError):
    """Reports a device on which some case failed."""


@click.group("ascend")
def ascend() -> None:
    """Look at an Ascend card."""


@ascend.command("check", short_help="Try everything on a card and write one file about it.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), default=Path("atb-ascend-check.json"),
              show_default=True, metavar="FILE", help="Where the results go.")  # fmt: skip
@click.option("--backend", type=click.Choice(("atb", "atb-sim")), default="atb", show_default=True,
              help="The card, or the simulator of ATB.")  # fmt: skip
@click.option(
    "--only", "groups", type=click.Choice(_GROUPS), multiple=True, help="What to try; repeatable. [default: all]"
)
@click.option("--match", metavar="TEXT", help="Try only the cases whose names contain TEXT.")
@click.option("--model", metavar="MODEL", help="Checkpoint for the benchmark; by default a random one is made.")
def check(output: Path, backend: str, groups: tuple[str, ...], match: str | None, model: str | None) -> None:
    """Try every op, a tiny model of every family, harmless faults and a benchmark, and write one file.

    The file holds versions, each case with result, error and figures, and at its top a summary. Names of the host, of
    the user and of folders are taken out; look at it before you send it. It is written after each case: a crash leaves
    the name of the case in it, and Ctrl-C a partial file that says so. Exit status 1 if a case failed; what the
    backend refuses by name is no failure.
    """
    from atb_core.checkpoint import open_checkpoint
    from atb_core.engine import get_backend
    from atb_testing.ascend.privacy import Anonymizer
    from atb_testing.ascend.report import CheckReport

    device = get_backend(backend)  # what this machine lacks for it is said before anything is tried
    if model is not None:
        open_checkpoint(model)
    chosen = [case for case in _cases(backend, device, groups or _GROUPS, model) if (match or "") in str(case)]
    if not chosen:
        raise click.UsageError(f"no case has {match!r:.80} in its name")
    secrets = [] if model is None else [(model, "MODEL")]
    report = CheckReport(output, _about(backend, device), Anonymizer(secrets))
    try:
        _run(report, chosen)
    except KeyboardInterrupt:
        report.finish("interrupted")
        note(f"interrupted; {output} holds what was done, and is marked as partial")
        raise
    report.finish("complete")
    say("\n".join(report.summary()))
    note(f"{output} holds all results; read it before you send it")
    if report.failed:
        hint = f"{output} names them; docs/ascend.md says where to report it."
        raise CheckError(f"{len(report.failed)} of {len(report.cases)} cases failed", hint=hint)


def _run(report: CheckReport, cases: Sequence[Case]) -> None:
    """Runs the cases, with a bar if stderr is a terminal and a line for each group otherwise."""
    stderr = sys.stderr
    group = ""
    with click.progressbar(cases, file=stderr, hidden=not stderr.isatty(), show_pos=True) as shown:
        for case in shown:
            if case.group != group and not stderr.isatty():
                note(f"{case.group}: {sum(each.group == case.group for each in cases)} cases")
            group = case.group
            report.run(case)


def _cases(backend: str, device: Any, groups: Sequence[str], model: str | None) -> Iterator[Case]:
    import torch
    from transformers.utils import logging

    from atb_testing.ascend.benchmark import Benchmark
    from atb_testing.ascend.faults import fault_cases
    from atb_testing.ascend.models import model_cases
    from atb_testing.ascend.ops import op_cases

    logging.disable_progress_bar()  # bars of the tiny checkpoints' files
    dtypes = [torch.float16, torch.bfloat16] if device.device.info["bf16"] else [torch.float16]
    if "ops" in groups:
        yield from op_cases(backend, dtypes)
    if "models" in groups:
        yield from model_cases(backend, dtypes)
    if "faults" in groups:
        yield from fault_cases(backend)
    if "benchmark" in groups:
        yield from Benchmark(backend, model, dtypes[-1]).cases()


def _about(backend: str, device: Any) -> dict[str, Any]:
    """Returns the device, the versions and what `atb doctor` finds."""
    from atb_ascend import examine

    simulated = backend == "atb-sim"
    what = _SIMULATED.format(soc=device.soc_name) if simulated else f"Card: {device.soc_name}"
    free, total = device.device.memory
    return {
        "device": what,
        "simulator": simulated,
        "soc": device.soc_name,
        "memory": {"free_bytes": free, "total_bytes": total},
        "versions": _versions(),
        "machine": {"architecture": platform.machine(), "libc": "-".join(platform.libc_ver())},
        "findings": [asdict(finding) for finding in examine().findings],
    }


def _versions() -> dict[str, str]:
    names = {
        distribution.name for distribution in importlib.metadata.distributions() if distribution.name.startswith("atb-")
    }
    found = {name: version_of(name) for name in (*sorted(names), *_PACKAGES)}
    return {"python": platform.python_version(), **{name: version for name, version in found.items() if version}}
