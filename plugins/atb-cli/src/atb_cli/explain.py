# SPDX-License-Identifier: Apache-2.0
"""`atb explain`: the package that serves a model, why it does, and what it makes of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atb_cli.options import model_argument
from atb_cli.output import aligned, json_option, say, size_text, table
from atb_cli.show import collect, context_bytes, open_model
from atb_core.errors import AtbError
from atb_core.names import DTYPES
from atb_core.plugins.registry import MODELS, ROUTERS, Resolution, load, registry
from atb_core.settings import model_reference

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint


@click.command()
@model_argument
@json_option
def command(model: str, as_json: bool) -> None:
    """Say which package serves MODEL and why, and what it makes of it. No weights are loaded.

    MODEL may also be a model type, such as qwen2: a word that is no path and no reference.
    """
    explanation, error = explain(model)
    say(json.dumps(explanation, indent=2) if as_json else _text(explanation))
    if error is not None:
        raise error


def explain(model: str) -> tuple[dict[str, Any], Exception | None]:
    """Returns the object that `atb explain --json` prints, and the error that running the model would end in.

    `path` is `None` where only a model type was given, `winner` where no package serves it (`error` says why), and
    `facts`, those of `atb show --json`, without a model's files. The checkpoint's own dtype is the first of `dtypes`.
    """
    checkpoint, model_type = _where(model)
    resolution = registry().resolve(model_type)
    error: AtbError | None = resolution.error
    explanation: dict[str, Any] = {
        "model": model,
        "path": None if checkpoint is None else str(checkpoint),
        "model_type": resolution.model_type,
        "candidates": _candidates(resolution),
        "winner": None if resolution.winner is None else resolution.winner.package,
        "why": resolution.why,
        "error": None,
        "features": [],
        "dtypes": [],
        "facts": None,
    }
    if resolution.winner is not None:
        try:
            registry().load(registry().find(model_type), ROUTERS)
            explanation.update(_capabilities(model, checkpoint, model_type))
        except AtbError as failure:
            error = failure
    if error is not None:
        explanation["error"] = str(error)
    return explanation, error


def _where(model: str) -> tuple[Checkpoint | None, str]:
    """Returns a model's files, fetched if need be, and its type; a word that is no path and no reference is a type."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.families import model_type_of

    if not Path(model).exists() and model_reference(model) == model and not set(model) & set("/:.\\"):
        return None, model
    checkpoint = open_checkpoint(model)
    return checkpoint, model_type_of(checkpoint)


def _candidates(resolution: Resolution) -> list[dict[str, str | None]]:
    """Returns every installed package that claims the type."""
    return [
        {
            "package": family.distribution,
            "version": family.version,
            "status": family.status.value,
            "reason": family.reason or None,
            "fix": family.fix,
        }
        for family in resolution.candidates
    ]


def _capabilities(model: str, checkpoint: Checkpoint | None, model_type: str) -> dict[str, Any]:
    """Returns the features that stack on a model, its own and those of plugins, its dtypes and its facts."""
    from atb_core.features import FEATURES

    features = [feature.feature_name for feature in load(MODELS, model_type).feature_decorators]
    features += [f"{each.value.feature_name} ({each.owner})" for each in FEATURES.all()]
    if checkpoint is None:
        return {"features": features, "dtypes": list(DTYPES)}
    facts = collect(model, open_model(checkpoint))
    dtypes = sorted(DTYPES, key=lambda dtype: dtype != facts["dtype"])
    return {"features": features, "dtypes": dtypes, "facts": facts}


def _text(explanation: dict[str, Any]) -> str:
    rows = {
        "model": explanation["model"],
        "path": explanation["path"],
        "model type": explanation["model_type"],
        "served by": explanation["winner"] or "nobody",
    }
    if explanation["winner"] is not None:
        rows["because"] = explanation["why"]
    if explanation["error"] is None:
        rows["features"] = ", ".join(explanation["features"]) or "none"
        rows["runs in"] = ", ".join(explanation["dtypes"])
    if (facts := explanation["facts"]) is not None:
        weights, full = facts["weight_bytes"], facts["weight_bytes"] + context_bytes(facts)
        rows["quantisation"] = facts["quantization"] or "none"
        rows["memory"] = f"{size_text(weights)} of weights, {size_text(full)} with a full context"
    text = aligned({name: value for name, value in rows.items() if value is not None})
    if not explanation["candidates"]:
        return text
    candidates = [
        (f"{each['package']} {each['version']}", each["status"], each["reason"] or "")
        for each in explanation["candidates"]
    ]
    return f"{text}\n\n{table(('CANDIDATE', 'STATUS', 'REASON'), candidates)}"
