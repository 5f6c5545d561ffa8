# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share: how a model is loaded and how tokens are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atb_core.names import BACKENDS, DTYPES, GRAPHS

if TYPE_CHECKING:
    from atb_core import ModelRunner, SamplingParams

Command = TypeVar("Command", bound=Callable[..., Any])

#: What `load_runner` takes of the options that `model_options` adds.
LOADING = ("backend", "graph", "dtype", "num_threads", "max_model_len", "features")

_MODEL_OPTIONS = (
    click.option("--backend", type=click.Choice(("auto", *BACKENDS)), default="auto", show_default=True,
                 help="What runs the graphs: the C++ engine, the slow reference in torch, an Ascend device (atb), or a"
                 " simulator of one."),
    click.option("--graph", type=click.Choice(GRAPHS),
                 help="Who writes the graphs: the family's Python, or C++ where the family has such a model."
                 " [default: engine.graph of the settings file, else python]"),
    click.option("--dtype", type=click.Choice(("auto", *DTYPES)), default="auto", show_default=True,
                 help="Precision of weights and activations; auto takes the checkpoint's."),
    click.option("--num-threads", type=click.IntRange(min=1), metavar="N",
                 help="Threads of the engine. [default: ATB_NUM_THREADS, OMP_NUM_THREADS or all cores]"),
    click.option("--max-model-len", type=click.IntRange(min=1), metavar="N",
                 help="Longest prompt plus answer, in tokens; sizes the KV cache."),
    click.option("--feature", "features", multiple=True, metavar="NAME",
                 help="Put a feature on the model, of its family or of a plugin; may be given again."),
)  # fmt: skip

_CHAT_OPTIONS = (
    click.option("--thinking/--no-thinking", default=None,
                 help="Let the model think before it answers, or not, where its family has a switch for it."),
    click.option("--chat-variable", "chat_variables", multiple=True, metavar="NAME=VALUE",
                 help="Give the chat template a variable, as JSON or else as text; may be given again."),
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


def chat_options(command: Command) -> Command:
    """Adds what `template_variables` takes."""
    return _add(command, _CHAT_OPTIONS)


def _add(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def load_runner(
    model: str,
    *,
    backend: str,
    graph: str | None,
    dtype: str,
    num_threads: int | None,
    max_model_len: int | None,
    features: tuple[str, ...],
) -> ModelRunner:
    """Resolves the reference `model`, loads it and returns its runner."""
    from atb_core import ModelRunner

    return ModelRunner(
        model,
        backend=backend,
        graph=graph,
        dtype=dtype,
        num_threads=num_threads,
        max_model_len=max_model_len,
        features=features,
    )


def template_variables(model: str, thinking: bool | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """The options of `chat_options` as the runner takes them; reads the configuration of `model` but no weights.

    Raises:
        UsageError: an option that is no `NAME=VALUE`, or a variable that is given twice.
        RequestError: `thinking` is given and the family of `model` has no switch for it.
    """
    given = [_assignment(text) for text in assignments]
    if thinking is not None:
        given.append((_thinking_variable(model, "--thinking" if thinking else "--no-thinking"), thinking))
    variables: dict[str, Any] = {}
    for name, value in given:
        if name in variables:
            raise click.UsageError(f"the chat variable {name} is given twice")
        variables[name] = value
    return variables


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--chat-variable {text}: write NAME=VALUE, for example date_string=today")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _thinking_variable(model: str, option: str) -> str:
    from atb_core.checkpoint import open_checkpoint
    from atb_core.errors import RequestError
    from atb_core.models.base.router import router_of

    router = router_of(open_checkpoint(model))
    if router.thinking_variable is None:
        raise RequestError(
            f"{option}: models of type {router.model_type!r} have no switch for thinking",
            hint="Leave it out; what else a chat template knows is set with --chat-variable NAME=VALUE.",
        )
    return router.thinking_variable


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
