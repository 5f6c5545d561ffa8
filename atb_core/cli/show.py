# SPDX-License-Identifier: Apache-2.0
"""`atb show`: what a model is and what it needs, from configuration and file headers alone."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.output import count_text, size_text
from atb_core.errors import WeightsError

if TYPE_CHECKING:
    from atb_core.cli.opened import OpenedModel


@dataclass(frozen=True)
class Facts:
    """What `atb show --json` prints. Sizes are in bytes."""

    model: str
    path: str
    model_type: str
    architecture: str
    package: str
    package_version: str
    dtype: str
    stored_types: dict[str, int]
    quantization: str | None
    parameters: int
    file_bytes: int
    weight_bytes: int
    kv_bytes_per_token: int
    context_length: int
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool
    rope: str
    checkpoint: str


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(model: str, as_json: bool) -> None:
    """Print what MODEL is: sizes, memory, which package serves it. No weights are loaded."""
    from atb_core.cli.opened import open_model

    facts = collect(model, open_model(model))
    click.echo(json.dumps(asdict(facts), indent=2) if as_json else _text(facts))


def collect(model: str, opened: OpenedModel) -> Facts:
    """Everything `atb show` knows of an opened model."""
    from atb_core.models.runtime.weight_loading import collect_parameters, plan_loading

    config = opened.router.config
    built = opened.build()
    parameters = collect_parameters([built])
    count = sum(math.prod(parameter.declared_shape or ()) for parameter in parameters)
    status, dtype = built.model_status, built.dtype
    with opened.weights() as loader:
        try:
            plan_loading(parameters, loader)
            checkpoint = "complete"
        except WeightsError as error:
            checkpoint = error.message
        file_bytes = sum(loader.nbytes(name) for name in loader.names())
    stored = opened.checkpoint.stored_types()
    architectures = opened.router.config_dict.get("architectures") or [opened.family.model_type]
    scaling = config.rope_scaling
    return Facts(
        model=model,
        path=str(opened.checkpoint),
        model_type=opened.family.model_type,
        architecture=str(architectures[0]),
        package=opened.family.distribution,
        package_version=opened.family.version,
        dtype=dtype.short,
        stored_types=dict(stored.most_common()),
        quantization=opened.checkpoint.quantization(),
        parameters=count,
        file_bytes=file_bytes,
        weight_bytes=count * dtype.itemsize,
        kv_bytes_per_token=2 * status.num_layers * status.num_kv_heads * status.head_dim * dtype.itemsize,
        context_length=config.context_length,
        layers=status.num_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=status.num_heads,
        kv_heads=status.num_kv_heads,
        head_dim=status.head_dim,
        vocab_size=config.vocab_size,
        tied_embeddings=config.tie_word_embeddings,
        rope=f"{scaling.rope_type if scaling else 'default'}, theta {config.rope_theta:g}",
        checkpoint=checkpoint,
    )


def _text(facts: Facts) -> str:
    stored = ", ".join(f"{name} ({count})" for name, count in facts.stored_types.items())
    full = facts.kv_bytes_per_token * facts.context_length
    rows: list[tuple[str, Any]] = [
        ("model", facts.model),
        ("path", facts.path),
        ("architecture", f"{facts.architecture} (model type {facts.model_type})"),
        ("served by", f"{facts.package} {facts.package_version}"),
        ("parameters", f"{count_text(facts.parameters)} ({facts.parameters:,})"),
        ("runs in", facts.dtype),
        ("stored as", f"{size_text(facts.file_bytes)}: {stored} tensors"),
        ("quantisation", f"{facts.quantization}, dequantised when loaded" if facts.quantization else "none"),
        ("layers", f"{facts.layers} of {facts.hidden_size}, feed-forward {facts.intermediate_size}"),
        ("attention", f"{facts.heads} heads of {facts.head_dim}, {facts.kv_heads} for keys and values"),
        ("vocabulary", f"{facts.vocab_size}, {'tied' if facts.tied_embeddings else 'separate'} output matrix"),
        ("positions", f"rope {facts.rope}; context of {facts.context_length} tokens"),
        ("weights", f"{size_text(facts.weight_bytes)} in memory"),
        ("KV cache", f"{size_text(facts.kv_bytes_per_token)} a token, {size_text(full)} for a full context"),
        ("memory", f"about {size_text(facts.weight_bytes + full)} with one full context"),
        ("checkpoint", facts.checkpoint),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
