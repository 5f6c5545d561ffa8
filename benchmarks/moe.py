# SPDX-License-Identifier: Apache-2.0
"""Compares a layer of a mixture of experts with transformers in bfloat16: decode of 1 and 16 tokens, prefill of 256.

The layer is random, with 60 experts, of which each token uses 4, and no shared expert; its weights are larger than most
caches. It is compared with the implementation in transformers that was the fastest in a first round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from atb_core.engine.cpu import CpuBackend
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.nn.functional import (
    ActType,
    activation,
    grouped_matmul,
    linear,
    moe_init_routing,
    moe_token_unpermute,
    moe_topk_softmax,
)

EXPERTS, CHOSEN, HIDDEN, INNER = 60, 4, 2048, 1408
TASKS = {"decode of 1": 1, "decode of 16": 16, "prefill of 256": 256}
PEERS = ("eager", "grouped_mm")

Layer = Callable[[torch.Tensor], torch.Tensor]


def random_weights() -> dict[str, torch.Tensor]:
    """Returns the layer's weights by name, in the layout that both implementations use."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)

    return {
        "gate.weight": normal(EXPERTS, HIDDEN),
        "experts.gate_up_proj": normal(EXPERTS, 2 * INNER, HIDDEN),
        "experts.down_proj": normal(EXPERTS, HIDDEN, INNER),
    }


def ours(weights: dict[str, torch.Tensor], threads: int) -> Layer:
    """Returns the layer as a network of the CPU engine."""
    with Network("moe") as net:
        gate, gate_up, down = (Tensor(name, tuple(w.shape), DataType.BF16) for name, w in weights.items())
        x = Tensor("x", (Dim("tokens"), HIDDEN), DataType.BF16)
        shares, chosen, _ = moe_topk_softmax(linear(x, gate), CHOSEN)
        rows, places, ends = moe_init_routing(x, chosen, CHOSEN, EXPERTS)
        inner = activation(grouped_matmul(rows, gate_up, group_list=ends, transpose_b=True), ActType.SWIGLU)
        answers = grouped_matmul(inner, down, group_list=ends, transpose_b=True)
        net.mark_output(moe_token_unpermute(answers, places, shares), "y")
    net.weights_keys |= set(weights)
    engine = CpuBackend(num_threads=threads).build(net)
    engine.set_weights(weights)
    return lambda x: engine.forward({"x": x})["y"]


def theirs(weights: dict[str, torch.Tensor], implementation: str) -> Layer:
    """Returns the gate and the experts of transformers' Qwen2-MoE."""
    from transformers import Qwen2MoeConfig
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeExperts, Qwen2MoeTopKRouter

    config = Qwen2MoeConfig(
        hidden_size=HIDDEN,
        moe_intermediate_size=INNER,
        num_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        norm_topk_prob=False,
        experts_implementation=implementation,
    )
    layer = torch.nn.Module()
    with torch.device("meta"):
        layer.gate, layer.experts = Qwen2MoeTopKRouter(config), Qwen2MoeExperts(config)
    layer.load_state_dict(weights, assign=True)

    @torch.inference_mode()
    def run(x: torch.Tensor) -> torch.Tensor:
        _, shares, chosen = layer.gate(x)
        return layer.experts(x, chosen, shares)  # type: ignore[no-any-return]

    return run


def seconds(layer: Layer, tokens: int, round_: int, repeats: int) -> float:
    """Measures the seconds of one call; every call has new tokens, which choose other experts."""
    inputs = torch.randn(repeats, tokens, HIDDEN, generator=torch.Generator().manual_seed(round_)).bfloat16()
    start = time.perf_counter()
    for x in inputs:
        layer(x)
    return (time.perf_counter() - start) / repeats


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Returns the relative distance of a from b for the median token.

    The median ignores tokens whose experts have almost equal logits: bfloat16 rounding then decides between the
    experts.
    """
    a, b = a.float(), b.float()
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).median())


def race(layer: Layer, peers: dict[str, Layer], tokens: int, rounds: int) -> tuple[str, list[float], list[float]]:
    """Returns the name of the fastest peer, and the seconds of each round for our layer and for the peer."""
    repeats = max(1, 16 // tokens)
    seconds(layer, tokens, 0, repeats)
    best = min(peers, key=lambda name: seconds(peers[name], tokens, 0, repeats))
    both = {"ours": layer, best: peers[best]}
    times: dict[str, list[float]] = {name: [] for name in both}
    for round_ in range(1, rounds + 1):
        for name in both if round_ % 2 else reversed(both):
            times[name].append(seconds(both[name], tokens, round_, repeats))
    return best, times["ours"], times[best]


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = random_weights()
    size = sum(w.nbytes for w in weights.values())
    layer, peers = ours(weights, args.threads), {name: theirs(weights, name) for name in PEERS}
    x = torch.randn(32, HIDDEN).bfloat16()
    apart = max(error(layer(x), peer(x)) for peer in peers.values())
    print(f"{size / 2**20:.0f} MiB of weights; results of the median token differ by {apart:.1e}, relative\n")
    print("| task | ours, ms | transformers, ms | the fastest | ratio |\n|---|---|---|---|---|")
    for task, tokens in TASKS.items():
        best, mine, other = race(layer, peers, tokens, args.rounds)
        ratios = [b / a for a, b in zip(mine, other, strict=True)]
        print(
            f"| {task} | {statistics.median(mine) * 1e3:.2f} | {statistics.median(other) * 1e3:.2f} | {best} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()
