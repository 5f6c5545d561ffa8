# SPDX-License-Identifier: Apache-2.0
"""Runs a tiny random model of every installed family on a device and on the CPU engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from atb_core.errors import AtbError
from atb_core.names import QUANTIZATIONS
from atb_core.plugins.records import Status
from atb_core.plugins.registry import registry
from atb_core.runner.model_runner import ModelRunner
from atb_core.runner.sampling_params import SamplingParams
from atb_testing.ascend.report import Case, Outcome, described
from atb_testing.checkpoints import tiny_checkpoint

#: Lengths of prompts that run together; their sum is odd, and one is longer than a block.
_LENGTHS = (5, 1, 40, 17)
_TOKENS = 8
_TOP = 5
#: Fields that only some families have, whose usual values are too large for a tiny model.
_SMALL = {
    "head_dim": 16, "num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
}  # fmt: skip
_OPTIONS: dict[str, Any] = {"load_tokenizer": False, "max_model_len": 128, "block_size": 16}


def model_cases(backend: str, dtypes: Sequence[torch.dtype]) -> Iterator[Case]:
    """Yields a case for each usable family and element type, and for weights of integers of the first family."""
    families = {family.model_type for family in registry().families() if family.status is Status.OK}
    kinds: list[tuple[str, str | None]] = [(model_type, None) for model_type in sorted(families)]
    kinds += [(model_type, each) for model_type in sorted(families)[:1] for each in QUANTIZATIONS]
    for model_type, quantization in kinds:
        for dtype in dtypes:
            name = ", ".join(filter(None, (model_type, str(dtype).removeprefix("torch."), quantization)))
            yield Case("models", name, partial(_run, model_type, dtype, backend, quantization))


def _run(model_type: str, dtype: torch.dtype, backend: str, quantization: str | None) -> Outcome:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if model_type not in CONFIG_MAPPING_NAMES:
        return Outcome("skipped", f"the installed transformers has no model of type {model_type}")
    usual = AutoConfig.for_model(model_type)
    small = {name: value for name, value in _SMALL.items() if hasattr(usual, name)}
    prompts = [[(7919 * i + 104729 * j + i * i * j) % 200 for i in range(n)] for j, n in enumerate(_LENGTHS, 1)]
    sampling = SamplingParams(temperature=0.0, max_tokens=_TOKENS, ignore_eos=True, logprobs=_TOP)
    with tempfile.TemporaryDirectory(prefix="atb-check-") as folder:
        path = tiny_checkpoint(Path(folder), model_type, dtype, **small)
        options = {**_OPTIONS, "quantization": quantization}
        expected = ModelRunner(str(path), backend="cpu", **options).generate(prompts, sampling)
        try:
            runner = ModelRunner(str(path), backend=backend, **options)
        except AtbError as error:
            return Outcome("refused", described(error))
        return _compared(expected, runner.generate(prompts, sampling))


def _compared(expected: Sequence[Any], actual: Sequence[Any]) -> Outcome:
    """Compares greedy tokens: where they part first, each must be among the other's best ones."""
    same, total = 0, len(expected) * _TOKENS
    for prompt, (one, other) in enumerate(zip(expected, actual, strict=True)):
        pairs = list(zip(one.outputs[0].token_ids, other.outputs[0].token_ids, strict=True))
        apart = next((step for step, (a, b) in enumerate(pairs) if a != b), None)
        same += len(pairs) if apart is None else apart
        if apart is not None:
            a, b = pairs[apart]
            tops = one.outputs[0].logprobs[apart], other.outputs[0].logprobs[apart]
            if a not in tops[1] or b not in tops[0]:
                message = f"prompt {prompt}, token {apart}: {b}, the CPU engine's is {a}, not near each other"
                return Outcome("failed", message, {"equal tokens": same, "tokens": total})
    return Outcome("passed", figures={"equal tokens": same, "tokens": total})
