# SPDX-License-Identifier: Apache-2.0
"""Makes random routers whose choice of experts does not depend on rounding.

If two experts score nearly the same, rounding decides which one a token is routed to: in bfloat16 torch then differs
from float32 as much as unrelated models do, and a comparison is meaningless. In the random checkpoints of models with
experts no score is therefore near the border between chosen and not: each token's embedding points along the router's
rows for as many experts as are chosen, and against the others. The chosen experts differ from token to token and from
layer to layer; the scores among them stay random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# For embeddings of unit scale; the layers' contribution to a score is of order one.
_STRENGTH = 6.0


def routers(model: Any) -> dict[str, torch.Tensor]:
    """Returns the router matrices `[experts, hidden_size]` of Hugging Face's `model` by module."""
    experts = _setting(model, "num_experts", "num_local_experts", "n_routed_experts")
    names = ("gate.weight", "router.weight")
    matrices = {
        n: p for n, p in model.named_parameters() if n.endswith(names) and p.dim() == 2 and p.shape[0] == experts
    }
    return {name.rpartition(".")[0]: weight for name, weight in matrices.items()}


def chosen_experts(model: Any, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Returns the experts `[choices, k]`, sorted, that `model` routes the tokens of `sequences` to, in every layer.

    Raises:
        AssertionError: the model has no routers that the kit recognises.
    """
    matrices, chosen = routers(model), _setting(model, "num_experts_per_tok", "moe_topk")
    if not matrices or chosen is None:
        raise AssertionError(
            "Hugging Face's model of this case has no router (a matrix `gate` or `router` of one row an expert). "
            "Where the first layers are dense, let `config` have none, and test them by one of the `cases`"
        )
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in matrices}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _m, args, n=name: inputs[n].append(args[0]))
        for name in matrices
    ]
    with torch.no_grad():
        for sequence in sequences:
            model(torch.tensor([list(sequence)]), use_cache=False)
    for handle in handles:
        handle.remove()
    scores = [
        torch.cat([value.flatten(0, -2) for value in inputs[name]]).float() @ weight.float().T
        for name, weight in matrices.items()
    ]
    return torch.cat(scores).topk(chosen).indices.sort(1).values


def separate_routes(model: Any) -> None:
    """Changes a random model with experts so that every token's choice is clear; other models stay as they are.

    Every layer's router has the same orthogonal rows in another order.
    """
    matrices = list(routers(model).values())
    chosen = _setting(model, "num_experts_per_tok", "moe_topk")
    if not matrices or chosen is None:
        return
    generator = torch.Generator().manual_seed(11)
    experts, hidden = matrices[0].shape
    directions = torch.linalg.qr(torch.randn(hidden, experts, generator=generator))[0].T
    embedding = model.get_input_embeddings().weight
    # Each token has a random order of the experts; the first `chosen` of them are chosen.
    ranks = torch.rand(len(embedding), experts, generator=generator).argsort(1).argsort(1)
    with torch.no_grad():
        embedding += _STRENGTH * torch.where(ranks < chosen, 1.0, -1.0) @ directions
        for router in matrices:
            router.copy_(directions[torch.randperm(experts, generator=generator)])


def _setting(model: Any, *names: str) -> int | None:
    return next((value for name in names if (value := getattr(model.config, name, None)) is not None), None)
