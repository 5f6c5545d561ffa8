# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: how a model is loaded and how tokens are chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from atb_core import ModelRunner, SamplingParams

Command = TypeVar("Command", bound=Callable[..., Any])

BACKENDS = ("auto", "cpu", "reference", "atb")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_MODEL_OPTIONS = (
    click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True,
                 help="What runs the graphs: the C++ engine, or the slow reference in torch."),
    click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True,
                 help="Precision of weights and activations; auto takes the checkpoint's."),
    click.option("--num-threads", type=click.IntRange(min=1), metavar="N",
                 help="Threads of the engine. [default: ATB_NUM_THREADS, OMP_NUM_THREADS or all cores]"),
    click.option("--max-model-len", type=click.IntRange(min=1), metavar="N",
                 help="Longest prompt plus answer, in tokens; sizes the KV cache."),
)  # fmt: skip

_SAMPLING_OPTIONS = (
    click.option("--max-tokens", type=click.IntRange(min=1), default=512, show_default=True, metavar="N",
                 help="Most tokens to generate."),
    click.option("--temperature", type=click.FloatRange(min=0.0), metavar="T",
                 help="0 takes the likeliest token. [default: 0; 1 with another sampling option]"),
    click.option("--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), default=1.0, show_default=True,
                 metavar="P", help="Keep the likeliest tokens that together have probability P."),
    click.option("--top-k", type=click.IntRange(min=0), default=0, show_default=True, metavar="K",
                 help="Keep the K likeliest tokens; 0 keeps all."),
    click.option("--min-p", type=click.FloatRange(0.0, 1.0), default=0.0, show_default=True, metavar="P",
                 help="Keep tokens at least P times as likely as the likeliest."),
    click.option("--repetition-penalty", type=click.FloatRange(min=0.0, min_open=True), default=1.0,
                 show_default=True, metavar="R", help="Above 1, tokens already there become less likely."),
    click.option("--seed", type=int, metavar="N", help="Makes sampling repeatable."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; may be given again."),
    click.option("--ignore-eos", is_flag=True, help="Do not stop where the model wants to."),
)  # fmt: skip


def model_options(command: Command) -> Command:
    """Adds what `load_runner` takes."""
    return _add(command, _MODEL_OPTIONS)


def sampling_options(command: Command) -> Command:
    """Adds what `sampling_params` takes."""
    return _add(command, _SAMPLING_OPTIONS)


def _add(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def load_runner(
    model: str, *, backend: str, dtype: str, num_threads: int | None, max_model_len: int | None
) -> ModelRunner:
    """Resolves the reference `model`, loads it and returns its runner."""
    from atb_core import ModelRunner

    return ModelRunner(model, backend=backend, dtype=dtype, num_threads=num_threads, max_model_len=max_model_len)


def sampling_params(
    *,
    max_tokens: int,
    temperature: float | None,
    top_p: float,
    top_k: int,
    min_p: float,
    repetition_penalty: float,
    seed: int | None,
    stop: tuple[str, ...],
    ignore_eos: bool,
    logprobs: int | None = None,
) -> SamplingParams:
    """The options of `sampling_options` as the runner takes them."""
    from atb_core import SamplingParams

    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=list(stop),
        ignore_eos=ignore_eos,
        logprobs=logprobs,
    )
