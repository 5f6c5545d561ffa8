# SPDX-License-Identifier: Apache-2.0
"""`atb show`: what a model is and what it needs, from configuration and file headers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from atb_cli.options import kv_cache_dtype_option, model_argument
from atb_cli.output import aligned, count_text, json_option, note, say, size_text, terminal_safe
from atb_core.errors import TokenizerError, WeightsError
from atb_core.plugins.registry import Family, registry

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint, WeightLoader
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.base.router import BaseRouter
    from atb_core.models.runtime.rope_scaling import Rope


@dataclass(frozen=True)
class OpenedModel:
    """A model opened for inspection: its files and the family that serves it."""

    checkpoint: Checkpoint
    family: Family
    router: BaseRouter

    def build(self, backend: str = "cpu", features: Sequence[str] = (), **options: Any) -> CausalLM:
        """Returns the model with its shapes and without weights, and with features of plugins."""
        from atb_core.models.base.mindie_llm_config import MindIELLMConfig

        with self.weights() as loader:
            options |= {"features": tuple(features)} if features else {}
            return self.router.model_cls(MindIELLMConfig(self.router.config), loader, backend=backend, **options)

    def weights(self) -> WeightLoader:
        """Opens the checkpoint's tensors, of which only names, types and shapes are read."""
        return self.checkpoint.weights(self.router.config.data_type)


def open_model(model: str | Checkpoint) -> OpenedModel:
    """Finds a model, fetching it if it is not on this machine, and the family that serves it."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.base.router import router_of

    checkpoint = open_checkpoint(model) if isinstance(model, str) else model
    router = router_of(checkpoint)
    return OpenedModel(checkpoint, registry().find(router.model_type), router)


@click.command()
@model_argument
@kv_cache_dtype_option
@json_option
@click.option("--template", is_flag=True, help="Print the chat template instead, Jinja source.")
def command(model: str, kv_cache_dtype: str, as_json: bool, template: bool) -> None:
    """Print what MODEL is: sizes, memory, which package serves it. No weights are loaded."""
    if template:
        click.echo(terminal_safe(chat_template(open_model(model))), nl=False)
        return
    facts = collect(model, open_model(model), kv_cache_dtype)
    say(json.dumps(facts, indent=2) if as_json else _text(facts))


def chat_template(opened: OpenedModel) -> str:
    """Returns the template of a model's usual chats, and says which others it has; TokenizerError if there is none."""
    from atb_core.runner.model_loading import open_tokenizer

    templates = open_tokenizer(opened.router, opened.checkpoint).chat_templates
    if "default" not in templates:
        raise TokenizerError(f"{opened.checkpoint} has no chat template")
    if others := ", ".join(sorted(templates.keys() - {"default"})):
        note(f"there is another template, for chats with tools: {others}")
    return templates["default"].rstrip("\n") + "\n"


def collect(model: str, opened: OpenedModel, kv_cache_dtype: str = "auto") -> dict[str, Any]:
    """Returns the object that `atb show --json` prints; sizes are in bytes."""
    from atb_core.models.runtime.weight_loading import collect_parameters, plan_loading

    config = opened.router.config
    built = opened.build(kv_cache_dtype=kv_cache_dtype)
    parameters = collect_parameters([built])
    count = sum(math.prod(parameter.declared_shape or ()) for parameter in parameters)
    status, dtype = built.model_status, built.dtype
    with opened.weights() as loader:
        try:
            plan_loading(parameters, loader, built.unread_weights)
            checkpoint = "complete"
        except WeightsError as error:
            checkpoint = error.message
        file_bytes = sum(loader.nbytes(name) for name in loader.names())
    named = opened.router.config_dict.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else opened.family.model_type
    return {
        "model": model,
        "path": str(opened.checkpoint),
        "model_type": opened.family.model_type,
        "architecture": str(architecture)[:200],
        "package": opened.family.distribution,
        "package_version": opened.family.version,
        "dtype": dtype.short,
        "stored_types": dict(opened.checkpoint.stored_types().most_common()),
        "quantization": opened.checkpoint.quantization(),
        "parameters": count,
        "file_bytes": file_bytes,
        "weight_bytes": count * dtype.itemsize,
        "kv_cache_dtype": built.cache_dtype.short,
        "kv_bytes_per_token": sum(spec.bytes_per_token for spec in built.kv_cache_specs),
        "context_length": config.context_length,
        "layers": status.num_layers,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "heads": status.num_heads,
        "kv_heads": status.num_kv_heads,
        "head_dim": status.head_dim,
        "layers_with_other_heads": sum(each != status for each in built.layer_status),
        "vocab_size": config.vocab_size,
        "tied_embeddings": config.tie_word_embeddings,
        "rope": "; ".join(_rope_text(rope, status.head_dim) for rope in dict.fromkeys(built.ropes) if rope) or "none",
        "window": built.window,
        "checkpoint": checkpoint,
    }


def _rope_text(rope: Rope, head_dim: int) -> str:
    part = f", {rope.size} of {head_dim} elements" if rope.size != head_dim else ""
    return f"{rope.scaling.rope_type}, theta {rope.theta:g}{part}{', neighbours' if rope.interleaved else ''}"


def context_bytes(facts: dict[str, Any]) -> int:
    """Returns the size of the KV cache for one full context."""
    return int(facts["kv_bytes_per_token"] * facts["context_length"])


def _text(facts: dict[str, Any]) -> str:
    stored = ", ".join(f"{name} ({count})" for name, count in facts["stored_types"].items())
    quantization, full = facts["quantization"], context_bytes(facts)
    cached = "{}, {} a token".format(facts["kv_cache_dtype"], size_text(facts["kv_bytes_per_token"]))
    window = f"; window of {facts['window']}" if facts["window"] else ""
    others = f"; other heads in {count} layers" if (count := facts["layers_with_other_heads"]) else ""
    rows = {
        "model": facts["model"],
        "path": facts["path"],
        "architecture": f"{facts['architecture']} (model type {facts['model_type']})",
        "served by": "{package} {package_version}".format(**facts),
        "parameters": f"{count_text(facts['parameters'])} ({facts['parameters']:,})",
        "runs in": facts["dtype"],
        "stored as": f"{size_text(facts['file_bytes'])}: {stored} tensors",
        "quantisation": f"{quantization} (docs/quantization.md)" if quantization else "none",
        "layers": "{layers}, hidden size {hidden_size}, feed-forward size {intermediate_size}".format(**facts),
        "attention": "{heads} query heads, {kv_heads} key/value heads, {head_dim} wide".format(**facts) + others,
        "vocabulary": f"{facts['vocab_size']}, {'tied' if facts['tied_embeddings'] else 'separate'} output matrix",
        "positions": "rope {rope}; context of {context_length} tokens".format(**facts) + window,
        "weights": f"{size_text(facts['weight_bytes'])} in memory",
        "KV cache": f"{cached}, {size_text(full)} for a full context",
        "memory": f"about {size_text(facts['weight_bytes'] + full)} with one full context",
        "checkpoint": facts["checkpoint"],
    }
    return aligned(rows)
