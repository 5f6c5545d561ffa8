# SPDX-License-Identifier: Apache-2.0
"""The command `atb profile`: generates from a model and prints where the time went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atb_cli.options import OutputFile, load_runner, model_argument, model_options
from atb_cli.output import note, say
from atb_core.plugins import hookimpl
from atb_profile.bench.command import latency, throughput
from atb_profile.estimate.command import command as estimate


@click.command("profile", short_help="Tell where the time of a model's steps goes.")
@model_argument
@click.argument("prompt", default="Once upon a time")
@click.option("--max-tokens", type=click.IntRange(min=1), default=32, show_default=True, metavar="N",
              help="Tokens to generate.")  # fmt: skip
@click.option("--length", type=click.IntRange(min=1), metavar="N",
              help="Take N random tokens as the prompt, instead of PROMPT.")  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Sequences that run together, each with the prompt.")  # fmt: skip
@click.option("--trace", type=OutputFile(), metavar="FILE", help="Write a trace, which https://ui.perfetto.dev opens.")
@click.option("--limits/--no-limits", default=True, show_default=True,
              help="Measure the limits of this machine's memory and products, too; not for a device.")  # fmt: skip
@model_options
def command(
    model: str, prompt: str, max_tokens: int, length: int | None, batch: int, trace: Path | None, limits: bool,
    **loading: Any,
) -> None:  # fmt: skip
    """Generate from MODEL and print, for prefill and decode, the time of each op and module.

    A first run, which is not recorded, builds the engines. Sequences end only with --max-tokens.
    """
    from atb_core import SamplingParams
    from atb_profile.limits import measure_limits
    from atb_profile.profile import Profile

    # The recorded run must not find its prompt in the cache.
    runner = load_runner(model, enable_prefix_caching=False, load_tokenizer=length is None, **loading)
    if length is None:
        prompts: list[Any] = [prompt] * batch
    else:
        step = runner.vocab_size // 7 + 1  # spread over the vocabulary, and different in each sequence
        prompts = [[(i + 1) * (row + 1) * step % runner.vocab_size for i in range(length)] for row in range(batch)]
    sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    runner.generate(prompts, SamplingParams(max_tokens=2, ignore_eos=True))
    with Profile(runner, trace) as profile:
        runner.generate(prompts, sampling)
    measured = None
    if limits and not profile.clock:
        threads = getattr(runner.model.backend, "num_threads", None) or 1
        measured = measure_limits(threads, runner.config.torch_dtype)
    say(profile.text(measured))
    if trace is not None:
        note(f"{trace}: open it in https://ui.perfetto.dev")


@hookimpl
def atb_cli_commands() -> list[click.Command]:
    """Returns `atb profile`, `atb estimate`, `atb bench latency` and `atb bench throughput`."""
    return [command, estimate, latency, throughput]
