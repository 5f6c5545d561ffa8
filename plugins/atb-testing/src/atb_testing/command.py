# SPDX-License-Identifier: Apache-2.0
"""The command `atb verify`: compares a checkpoint's logits and greedy tokens with Hugging Face's."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atb_cli.options import BackendName, model_argument
from atb_cli.output import note, size_text
from atb_core.engine import get_backend
from atb_core.errors import AtbError, ConfigError
from atb_core.plugins import hookimpl
from atb_testing.ascend.command import ascend
from atb_testing.draw import command as draw
from atb_testing.dump_commands import compare_command, dump_command
from atb_testing.scaffold.command import command as plugins_new

if TYPE_CHECKING:
    from atb_testing.verify import Verification


class VerificationError(AtbError):
    """Reports a model that differs from Hugging Face's by more than rounding."""


@click.command("verify")
@model_argument
@click.option("--backend", "backends", multiple=True, default=("cpu",), show_default=True,
              type=BackendName(), help="Backend to compare; may be given several times.")  # fmt: skip
@click.option("--tokens", type=click.IntRange(0, 1024), default=16, show_default=True, metavar="N",
              help="Greedy tokens after each of a few texts; 0 leaves them out.")  # fmt: skip
@click.option("--longest", type=click.IntRange(min=33), default=8192, show_default=True, metavar="N",
              help="Longest prompt; windows of the context and the like that are longer are not tested.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, backends: tuple[str, ...], tokens: int, longest: int, as_json: bool) -> None:
    """Compare MODEL, a checkpoint in safetensors, with Hugging Face's implementation.

    The reference is Hugging Face in float32. Our errors may be at most twice those of torch in the checkpoint's
    element type; otherwise the first module that differs is named. Exit status 1 if they differ. Of a quantised
    checkpoint the values of its matrices are compared, and what it loses as it runs is reported.
    """
    for backend in backends:
        get_backend(backend)  # what this machine lacks for it is said before anything is computed
    directory = _directory(model)
    from atb_testing.verify import verify

    note(_memory(directory))
    result = verify(directory, backends, tokens, note, longest)
    click.echo(json.dumps({"passed": result.passed, **asdict(result)}, indent=2) if as_json else _text(result))
    if not result.passed:
        raise VerificationError(
            "the model differs from Hugging Face's by more than rounding",
            hint="Begin with the first module that differs; docs/precision.md describes how.",
        )


def _directory(model: str) -> Path:
    """Returns the checkpoint's directory; refuses a checkpoint that cannot be compared."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.checkpoint.directory import DirectoryCheckpoint
    from atb_core.models.families import model_type_of
    from atb_core.plugins.registry import registry

    checkpoint = open_checkpoint(model)
    if type(checkpoint) is not DirectoryCheckpoint:
        raise ConfigError(
            f"{checkpoint} is not in safetensors; atb verify compares checkpoints in safetensors",
            hint="Pass the directory of the checkpoint that the file was made from.",
        )
    model_type = model_type_of(checkpoint)
    registry().find(model_type)
    _check_transformers(model_type)
    return checkpoint.directory


def _check_transformers(model_type: str) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING_NAMES:
        raise ConfigError(
            f"the installed transformers has no model of type {model_type!r} to compare with",
            hint="Upgrade it (pip install --upgrade transformers).",
        )


def _memory(directory: Path) -> str:
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    # Hugging Face in float32 with a working copy, and torch's and ours in the stored type.
    return f"{size_text(stored)} of weights; comparing takes about {size_text(6 * stored)} of memory"


def _text(result: Verification) -> str:
    lines = [f"errors of the logits in {result.dtype}, divided by their mean magnitude:"]
    for backend, report in result.reports.items():
        verdict = "within bounds" if backend not in result.differences else "TOO LARGE"
        lines.append(
            f"  {backend}: max {report.ours_max:.2g}, mean {report.ours_mean:.2g}; torch: max {report.torch_max:.2g}, "
            f"mean {report.torch_mean:.2g}: {verdict}"
        )
    lines.append(f"  prompts of {', '.join(map(str, result.lengths))} tokens")
    if result.beyond:
        lines.append(f"  NOT tested: what changes at {', '.join(map(str, result.beyond))} tokens (--longest)")
    for backend, quality in result.as_stored.items():
        lines.append(
            f"  {backend} as it runs {result.quantization} without a dtype: mean {quality.mean:.2g}; the best token is "
            f"the same after {quality.same_best:.0%} of the tokens (not judged: activations may have 8 bits there)"
        )
    lines += [f"  first difference: {text}" for text in result.differences.values()]
    for backend, divergences in result.divergences.items():
        same = result.prompts - len(divergences)
        lines.append(f"{backend}: {same} of {result.prompts} texts have the same {result.tokens} greedy tokens")
        for each in divergences:
            kind = "each in the other's best 5" if each.is_close else "NOT close"
            lines.append(f"  text {each.prompt}, token {each.step}: {each.ours}, theirs {each.theirs}: {kind}")
    return "\n".join(lines)


@hookimpl
def atb_cli_commands() -> list[click.Command]:
    """Returns `atb verify`, `atb draw`, `atb dump`, `atb compare`, `atb plugins new` and `atb ascend`."""
    return [command, draw, dump_command, compare_command, plugins_new, ascend]
