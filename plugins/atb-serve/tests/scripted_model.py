# SPDX-License-Identifier: Apache-2.0
"""A real checkpoint whose answers are known: each token has one successor, by its weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers

END = "<|im_end|>"
# The last message ends the prompt, so its last token chooses the answer. Tools are in the prompt, if there are any.
TEMPLATE = """\
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}"""
HIDDEN, HEADS = 256, 4
CONTEXT = 512


def tokenizer_of(pieces: Sequence[str]) -> tokenizers.Tokenizer:
    """Bytes as tokens, and each of `pieces` as one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    tokenizer.add_tokens([AddedToken(piece, special=False) for piece in dict.fromkeys(pieces)])
    return tokenizer


def write_scripted(
    directory: Path, scripts: Mapping[str, Sequence[str]], template: str = TEMPLATE, model_type: str = "llama"
) -> Path:
    """Writes a checkpoint that answers a prompt that ends in a key of `scripts` with its pieces, then with the end.

    Args:
        directory: A new folder.
        scripts: Pieces of text by the text that they follow; a piece has one successor in all of them.
        template: The chat template.
        model_type: A family whose tensors are named as Llama's.
    """
    tokenizer = tokenizer_of([piece for key, pieces in scripts.items() for piece in (key, *pieces)])
    vocab = tokenizer.get_vocab_size()
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randint(0, 2, (vocab, HIDDEN), generator=generator) * 2.0 - 1
    head = torch.zeros(vocab, HIDDEN)
    successors: dict[int, int] = {}
    for key, pieces in scripts.items():
        ids = [tokenizer.token_to_id(piece) for piece in (key, *pieces, END)]
        for token, successor in itertools.pairwise(ids):
            assert successors.setdefault(token, successor) == successor, f"{tokenizer.id_to_token(token)!r} has two"
    for token, successor in successors.items():
        head[successor] += embedding[token] / 4
    _write(directory, tokenizer, template, _config(vocab, model_type), _tensors(embedding, head, model_type))
    return directory


def write_random(directory: Path, template: str = TEMPLATE) -> Path:
    """Writes a checkpoint with random weights, whose answers depend on every token of a prompt."""
    tokenizer = tokenizer_of([])
    vocab = tokenizer.get_vocab_size()
    generator = torch.Generator().manual_seed(2)
    zeros = _tensors(torch.zeros(vocab, HIDDEN), torch.zeros(vocab, HIDDEN), "llama")
    tensors = {
        name: torch.randn(each.shape, generator=generator) / HIDDEN**0.5 if each.dim() == 2 else each
        for name, each in zeros.items()
    }
    _write(directory, tokenizer, template, _config(vocab, "llama"), tensors)
    return directory


def _write(
    directory: Path, tokenizer: tokenizers.Tokenizer, template: str, config: dict[str, Any], tensors: Any
) -> None:
    directory.mkdir(parents=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": template, "eos_token": END}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _config(vocab: int, model_type: str) -> dict[str, Any]:
    return {
        "model_type": model_type, "torch_dtype": "float32", "vocab_size": vocab, "hidden_size": HIDDEN,
        "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False,
    }  # fmt: skip


def _tensors(embedding: torch.Tensor, head: torch.Tensor, model_type: str) -> dict[str, torch.Tensor]:
    """The layer adds nothing, so that the last token alone decides."""
    one, zeros = "model.layers.0", torch.zeros
    biases = {f"{one}.self_attn.{name}_proj.bias": zeros(HIDDEN) for name in "qkv"}
    square = {f"{one}.self_attn.{name}_proj.weight": zeros(HIDDEN, HIDDEN) for name in "qkvo"}
    return (
        (biases if model_type == "qwen2" else {})
        | square
        | {
            "model.embed_tokens.weight": embedding,
            "lm_head.weight": head,
            "model.norm.weight": torch.ones(HIDDEN),
            f"{one}.input_layernorm.weight": torch.ones(HIDDEN),
            f"{one}.post_attention_layernorm.weight": torch.ones(HIDDEN),
            f"{one}.mlp.gate_proj.weight": zeros(32, HIDDEN),
            f"{one}.mlp.up_proj.weight": zeros(32, HIDDEN),
            f"{one}.mlp.down_proj.weight": zeros(HIDDEN, 32),
        }
    )
