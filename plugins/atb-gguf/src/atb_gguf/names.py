# SPDX-License-Identifier: Apache-2.0
"""Translates the names in GGUF: of tensors and architectures into Hugging Face's, of a file into those of its parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from atb_core.errors import WeightsError

# Decoder-only transformers with separate projections, whatever the family.
_GENERIC = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
    "blk.{}.ffn_gate_inp": "model.layers.{}.mlp.gate",
    # All experts of a layer are one tensor, so a second {} is left in the name: the expert's number.
    "blk.{}.ffn_gate_exps": "model.layers.{}.mlp.experts.{}.gate_proj",
    "blk.{}.ffn_up_exps": "model.layers.{}.mlp.experts.{}.up_proj",
    "blk.{}.ffn_down_exps": "model.layers.{}.mlp.experts.{}.down_proj",
    "blk.{}.ffn_gate_shexp": "model.layers.{}.mlp.shared_expert.gate_proj",
    "blk.{}.ffn_up_shexp": "model.layers.{}.mlp.shared_expert.up_proj",
    "blk.{}.ffn_down_shexp": "model.layers.{}.mlp.shared_expert.down_proj",
    "blk.{}.ffn_gate_inp_shexp": "model.layers.{}.mlp.shared_expert_gate",
    # Layers that predict further tokens, behind the decoder's own.
    **{f"blk.{{}}.nextn.{name}": f"model.layers.{{}}.{name}" for name in ("eh_proj", "embed_tokens", "enorm", "hnorm")},
    "blk.{}.nextn.shared_head_head": "model.layers.{}.shared_head.head",
    "blk.{}.nextn.shared_head_norm": "model.layers.{}.shared_head.norm",
}
# Rotary frequencies are configuration: `read_gguf_config` reads the former, the latter can be derived.
_NOT_WEIGHTS = re.compile(r"rope_freqs\.weight|blk\.\d+\.attn_rot_embd\.weight")
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
_LAYER = re.compile(r"blk\.(\d{1,6})\.")


def hugging_face_names(names: Iterable[str], extra: Mapping[str, str], source: str) -> dict[str, str]:
    """Maps Hugging Face names to GGUF names for all tensors, in order; `{}` is left for an expert's number.

    Args:
        names: tensor names in the file.
        extra: the family's own names (`FormatRules.names`), which take precedence over the generic ones.
        source: the file, for the message.

    Raises:
        WeightsError: a tensor has no translation; without it the model would be another one.
    """
    table = {**_GENERIC, **extra}
    translated: dict[str, str] = {}
    unknown: list[str] = []
    for name in names:
        if _NOT_WEIGHTS.fullmatch(name):
            continue
        target = _translate(name, table)
        if target is None:
            unknown.append(name)
        elif target in translated:
            raise WeightsError(f"{source}: tensors {translated[target]!r} and {name!r} are both {target!r}")
        else:
            translated[target] = name
    if unknown:
        more = f" and {len(unknown) - 6} more" if len(unknown) > 6 else ""
        raise WeightsError(
            f"{source} contains tensors of unknown meaning: {', '.join(map(repr, unknown[:6]))}{more}",
            "The family's plugin has to name them (FormatRules.names); look for a newer version of it.",
        )
    return translated


def _translate(name: str, table: Mapping[str, str]) -> str | None:
    layer = _LAYER.match(name)
    pattern = f"blk.{{}}.{name[layer.end() :]}" if layer else name
    stem, _, kind = pattern.rpartition(".")
    target = table.get(pattern)
    if target is None and stem in table and kind in ("weight", "bias"):
        target = f"{table[stem]}.{kind}"
    return target.replace("{}", layer[1], 1) if target and layer else target


def model_type_of(architecture: str, served: Iterable[str]) -> str:
    """Returns the `model_type` that a GGUF file's `general.architecture` stands for.

    GGUF writes the words of a name together, so it is the one of `served` that equals `architecture` without its
    separators, the first of several; if there is none, it is `architecture` itself.
    """
    types = set(served)
    alike = sorted(name for name in types if re.sub("[-_.]", "", name) == architecture)
    return alike[0] if alike and architecture not in types else architecture


def parts_of(path: Path) -> list[Path]:
    """Returns the files of the model that a file is part of, by its name: `NAME-00001-of-00003.gguf` is the first."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    count = match["count"]
    return [path.with_name(f"{match['stem']}-{n + 1:05}-of-{count}{match['suffix']}") for n in range(int(count))]
