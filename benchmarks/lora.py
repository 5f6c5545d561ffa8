# SPDX-License-Identifier: Apache-2.0
"""Measures what adapters cost: 16 sequences with an adapter each, beside the same batch without.

The base has the sizes of Qwen2-0.5B and random weights; each adapter changes all of its matrices, at PEFT's own default
rank.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

import torch
from checkpoints import CACHE, QWEN2_05B, Shape, write_checkpoint
from safetensors.torch import save_file

from atb_core import ModelRunner, SamplingParams
from atb_profile.bench.machine import machine

PROMPT_TOKENS = 64


def sizes(shape: Shape) -> dict[str, tuple[int, int]]:
    """Returns the rows and columns of a layer's matrices, by their names in a checkpoint."""
    hidden, inner, keys = shape.hidden_size, shape.intermediate_size, shape.num_key_value_heads * shape.head_dim
    attention = {"q_proj": hidden, "k_proj": keys, "v_proj": keys, "o_proj": hidden}
    return {
        **{f"self_attn.{name}": (rows, hidden) for name, rows in attention.items()},
        **{f"mlp.{name}": (inner, hidden) for name in ("gate_proj", "up_proj")},
        "mlp.down_proj": (hidden, inner),
    }


def write_adapter(directory: Path, shape: Shape, rank: int, seed: int) -> None:
    """Writes a random adapter in PEFT's format."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for layer in range(shape.num_hidden_layers):
        for name, (rows, columns) in sizes(shape).items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            for half, size in (("lora_A", (rank, columns)), ("lora_B", (rows, rank))):
                values = torch.randn(size, generator=generator) * 0.02
                tensors[f"{place}.{half}.weight"] = values.bfloat16()
    settings = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": [name.rpartition(".")[2] for name in sizes(shape)],
    }  # fmt: skip
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, directory / "adapter_model.safetensors")


def main() -> None:
    """Runs both in alternating order and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    about = machine(args.threads)
    print(f"{about['processor']}, {about['isa']}, {about['threads']} threads, load {about['load_average']}", flush=True)
    base = CACHE / "qwen2-0.5b"
    write_checkpoint(base, QWEN2_05B)
    params = SamplingParams(max_tokens=args.max_tokens, ignore_eos=True)
    with tempfile.TemporaryDirectory() as folder:
        adapters = {f"adapter-{n}": Path(folder) / str(n) for n in range(args.sequences)}
        for seed, directory in enumerate(adapters.values()):
            write_adapter(directory, QWEN2_05B, args.rank, seed)
        with ModelRunner(
            base, load_tokenizer=False, num_threads=args.threads, lora_modules=adapters, max_loras=len(adapters),
            max_lora_rank=args.rank, max_model_len=PROMPT_TOKENS + args.max_tokens,
        ) as runner:  # fmt: skip

            def seconds(names: list[str | None]) -> float:
                prompts = [[random.randrange(1000, 100000) for _ in range(PROMPT_TOKENS)] for _ in names]
                begin = time.perf_counter()
                runner.generate(prompts, params, adapter_ids=names)
                return time.perf_counter() - begin

            tasks: dict[str, list[str | None]] = {"adapters": [*adapters], "none": [None] * len(adapters)}
            ratios = []
            for number in range(args.rounds + 1):
                took = {name: seconds(tasks[name]) for name in sorted(tasks, reverse=bool(number % 2))}
                if number:  # the first round builds graphs
                    ratios.append(took["adapters"] / took["none"])
                    print(f"with adapters {took['adapters']:.2f} s, without {took['none']:.2f} s", flush=True)
    print(f"with / without: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
