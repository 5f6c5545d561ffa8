# SPDX-License-Identifier: Apache-2.0
"""`atb explain`: who serves a model and why, and what that package makes of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.output import size_text, table

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint
    from atb_core.cli.show import Facts
    from atb_core.plugins.registry import Resolution


@dataclass(frozen=True)
class Explanation:
    """What `atb explain --json` prints.

    Attributes:
        path: of the model's files; `None` where only a model type was given.
        candidates: every installed package that claims the type: name, version, status, reason, fix.
        winner: the package that serves it; `None`: `error` says why there is none.
        why: what decided.
        features: what stacks on the model, its own and those of plugins.
        dtypes: element types that it can run in; the checkpoint's own comes first.
        facts: sizes, quantisation and memory, as `atb show --json`; `None` without a model's files.
    """

    model: str
    path: str | None
    model_type: str
    candidates: list[dict[str, str | None]]
    winner: str | None
    why: str
    error: str | None
    features: list[str]
    dtypes: list[str]
    facts: dict[str, Any] | None


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, as_json: bool) -> None:
    """Say which package serves MODEL and why, and what it makes of it. No weights are loaded.

    MODEL may also be a model type, such as qwen2: a word that is no path and no reference.
    """
    explanation, error = explain(model)
    click.echo(json.dumps(asdict(explanation), indent=2) if as_json else _text(explanation))
    if error is not None:
        raise error


def explain(model: str) -> tuple[Explanation, Exception | None]:
    """The explanation, and the error that running the model would end in."""
    from atb_core.errors import AtbError
    from atb_core.plugins.registry import ROUTERS, registry

    checkpoint, model_type = _where(model)
    resolution = registry().resolve(model_type)
    error: AtbError | None = resolution.error
    facts: Facts | None = None
    features: list[str] = []
    dtypes: list[str] = []
    if resolution.winner is not None:
        try:
            registry().load(registry().find(model_type), ROUTERS)
            features, dtypes, facts = _made_of_it(model, checkpoint, model_type)
        except AtbError as failure:
            error = failure
    return _explanation(model, checkpoint, resolution, error, features, dtypes, facts), error


def _where(model: str) -> tuple[Checkpoint | None, str]:
    """Returns a model's files, fetched if need be, and its type; a word that is no path and no reference is a type."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.families import model_type_of

    if not Path(model).exists() and not set(model) & set("/:.\\"):
        return None, model
    checkpoint = open_checkpoint(model)
    return checkpoint, model_type_of(checkpoint)


def _made_of_it(
    model: str, checkpoint: Checkpoint | None, model_type: str
) -> tuple[list[str], list[str], Facts | None]:
    from atb_core.features import FEATURES
    from atb_core.names import DTYPES
    from atb_core.plugins.registry import model_for

    own = [feature.feature_name for feature in model_for(model_type).feature_decorators]
    features = own + [f"{each.value.feature_name} ({each.owner})" for each in FEATURES.all()]
    if checkpoint is None:
        return features, list(DTYPES), None
    from atb_core.cli.opened import opened_model
    from atb_core.cli.show import collect

    facts = collect(model, opened_model(checkpoint))
    return features, [facts.dtype, *(dtype for dtype in DTYPES if dtype != facts.dtype)], facts


def _explanation(
    model: str,
    checkpoint: Checkpoint | None,
    resolution: Resolution,
    error: Exception | None,
    features: list[str],
    dtypes: list[str],
    facts: Facts | None,
) -> Explanation:
    candidates: list[dict[str, str | None]] = [
        {
            "package": family.distribution,
            "version": family.version,
            "status": family.status.value,
            "reason": family.reason or None,
            "fix": family.fix,
        }
        for family in resolution.candidates
    ]
    return Explanation(
        model=model,
        path=None if checkpoint is None else str(checkpoint),
        model_type=resolution.model_type,
        candidates=candidates,
        winner=None if resolution.winner is None else resolution.winner.package,
        why=resolution.why,
        error=None if error is None else str(error),
        features=features,
        dtypes=dtypes,
        facts=None if facts is None else asdict(facts),
    )


def _text(explanation: Explanation) -> str:
    lines = [f"model        {explanation.model}"]
    if explanation.path is not None:
        lines.append(f"path         {explanation.path}")
    lines.append(f"model type   {explanation.model_type}")
    lines.append(f"served by    {explanation.winner or 'nobody'}")
    if explanation.winner is not None:
        lines.append(f"because      {explanation.why}")
    if explanation.error is None:
        lines.append(f"features     {', '.join(explanation.features) or 'none'}")
        lines.append(f"runs in      {', '.join(explanation.dtypes)}")
    if (facts := explanation.facts) is not None:
        full = facts["weight_bytes"] + facts["kv_bytes_per_token"] * facts["context_length"]
        lines.append(f"quantisation {facts['quantization'] or 'none'}")
        lines.append(
            f"memory       {size_text(facts['weight_bytes'])} of weights, {size_text(full)} with a full context"
        )
    if explanation.candidates:
        rows = [
            (f"{each['package']} {each['version']}", str(each["status"]), each["reason"] or "")
            for each in explanation.candidates
        ]
        lines += ["", table(("CANDIDATE", "STATUS", "REASON"), rows)]
    return "\n".join(lines)
