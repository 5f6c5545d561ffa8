# SPDX-License-Identifier: Apache-2.0
"""`atb run`: one prompt, one answer, streamed."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.options import (
    LOADING,
    chat_options,
    load_runner,
    model_options,
    sampling_options,
    sampling_params,
    template_variables,
)
from atb_core.cli.output import TextStream, note

if TYPE_CHECKING:
    from atb_core.runner.outputs import RequestOutput, StreamChunk


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat template.")
@click.option("--system", metavar="TEXT", help="System message that goes before the prompt.")
@click.option("--stats", is_flag=True, help="Say on stderr how long loading, prefill and decode took.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of streaming text.")
@click.option("--logprobs", type=click.IntRange(min=0), metavar="N",
              help="With --json: log probability of each token and of the N likeliest.")  # fmt: skip
@chat_options
@sampling_options
@model_options
def command(
    model: str,
    prompt: str | None,
    raw: bool,
    system: str | None,
    stats: bool,
    as_json: bool,
    logprobs: int | None,
    thinking: bool | None,
    chat_variables: tuple[str, ...],
    **options: Any,
) -> None:
    """Let MODEL answer PROMPT; without PROMPT, or with "-", it is read from stdin.

    Decoding is greedy unless a sampling option is given.
    """
    if raw and system is not None:
        raise click.UsageError("--raw sends the prompt as it is, so there is no place for --system")
    if raw and (thinking is not None or chat_variables):
        raise click.UsageError("--raw uses no chat template, so there is nothing to set in one")
    text = _prompt_text(prompt)
    loading = {name: options.pop(name) for name in LOADING}
    sampling = sampling_params(logprobs=logprobs, **options)
    variables = template_variables(model, thinking, chat_variables)
    started = time.monotonic()
    runner = load_runner(model, **loading)
    load_seconds = time.monotonic() - started
    request = text if raw else _chat(text, system)
    output = _follow(runner.generate([request], sampling, stream=True, chat_variables=variables), show=not as_json)
    if as_json:
        click.echo(json.dumps(_as_json(output), ensure_ascii=False, indent=2))
    if stats:
        note(_stats(output, load_seconds))


def _prompt_text(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("no prompt: give PROMPT, pipe it in, or talk with `atb chat MODEL`")
    text = sys.stdin.read()
    if not text.strip():
        raise click.UsageError("no prompt: stdin is empty")
    return text


def _chat(text: str, system: str | None) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return [*messages, {"role": "user", "content": text}]


def _follow(chunks: Iterable[StreamChunk], *, show: bool) -> RequestOutput:
    """Prints the pieces of one answer as they come and returns the whole."""
    output: RequestOutput | None = None
    with TextStream() as stream:
        for chunk in chunks:
            if show:
                stream.write(chunk.text)
            output = chunk.output or output
    assert output is not None, "the last chunk of a request carries its output"
    return output


def _as_json(output: RequestOutput) -> dict[str, Any]:
    record = dataclasses.asdict(output)
    if output.logprobs is not None:
        record["logprobs"] = [step._asdict() for step in output.logprobs]
    return record


def _stats(output: RequestOutput, load_seconds: float) -> str:
    metrics = output.metrics
    prompt, generated = len(output.prompt_token_ids), len(output.token_ids)
    decode = f"{(generated - 1) / metrics.decode_time:.1f} tok/s" if metrics.decode_time > 0 else "-"
    prefill = f"{prompt / metrics.time_to_first_token:.0f} tok/s" if metrics.time_to_first_token > 0 else "-"
    return (
        f"load {load_seconds:.2f} s | prompt {prompt} tokens, first token after "
        f"{metrics.time_to_first_token:.2f} s ({prefill}) | {generated} tokens generated ({decode}) | "
        f"ended by: {output.finish_reason}"
    )
