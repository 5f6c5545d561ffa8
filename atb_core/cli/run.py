# SPDX-License-Identifier: Apache-2.0
"""`atb run`: one prompt, one answer, streamed."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from atb_core.cli.options import chat_options, model_options, open_session, sampling_options
from atb_core.cli.output import TextStream, note, note_of_cut

if TYPE_CHECKING:
    from atb_core.runner.outputs import RequestOutput, StreamChunk


@click.command()
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat template.")
@click.option("--system", metavar="TEXT", help="System message that goes before the prompt.")
@click.option("--stats", is_flag=True, help="Say on stderr how long loading, prefill and decode took.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of streaming text.")
@click.option("--n", type=click.IntRange(min=1), default=1, metavar="N",
              help="With --json: number of answers; several are sampled.")  # fmt: skip
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
    n: int,
    logprobs: int | None,
    thinking: bool | None,
    chat_template_kwargs: tuple[str, ...],
    **options: Any,
) -> None:
    """Let MODEL answer PROMPT; text from stdin goes before it, and is the prompt if there is none or it is "-".

    Sampling options default to the model's generation config. Where it has none, decoding is greedy unless a sampling
    option is given.
    """
    for option, is_given in (("--logprobs", logprobs is not None), ("--n", n > 1)):
        if is_given and not as_json:
            raise click.UsageError(f"{option} needs --json")
    if raw and system is not None:
        raise click.UsageError("--raw sends the prompt as it is, so there is no place for --system")
    if raw and (thinking is not None or chat_template_kwargs):
        raise click.UsageError("--raw uses no chat template, so there is nothing to set in one")
    text = _prompt_text(prompt)
    count = n if n > 1 else None
    session = open_session(model, thinking, chat_template_kwargs, logprobs=logprobs, n=count, **options)
    runner, params = session.runner, session.sampling
    if raw:
        chunks = runner.generate([text], params, stream=True)
    else:
        chunks = runner.chat(_chat(text, system), params, stream=True, chat_template_kwargs=session.template_kwargs)
    output = _follow(chunks, show=not as_json)
    if as_json:
        click.echo(json.dumps(_as_json(output), ensure_ascii=False, indent=2))
    else:
        note_of_cut(output, params)
    if stats:
        note(_stats(output, session.load_seconds))


def _prompt_text(prompt: str | None) -> str:
    is_terminal = sys.stdin is None or sys.stdin.isatty()
    if is_terminal and prompt is None:
        raise click.UsageError("no prompt: give PROMPT, pipe it in, or talk with `atb chat MODEL`")
    if prompt is None or prompt == "-":
        text = sys.stdin.read()
        if not text.strip():
            raise click.UsageError("no prompt: stdin is empty")
        return text
    piped = "" if is_terminal else sys.stdin.read()
    return f"{piped.rstrip()}\n\n{prompt}" if piped.strip() else prompt


def _chat(text: str, system: str | None) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return [*messages, {"role": "user", "content": text}]


def _follow(chunks: Iterable[StreamChunk], *, show: bool) -> RequestOutput:
    """Prints an answer as it comes and returns the result."""
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
    for completion in record["outputs"]:
        if completion["logprobs"] is not None:
            completion["logprobs"] = [
                {token_id: entry._asdict() for token_id, entry in step.items()} for step in completion["logprobs"]
            ]
    return record


def _stats(output: RequestOutput, load_seconds: float) -> str:
    metrics = output.metrics
    prompt, generated = len(output.prompt_token_ids), sum(len(one.token_ids) for one in output.outputs)
    decoded = generated - len(output.outputs)
    decode = f"{decoded / metrics.decode_time:.1f} tok/s" if metrics.decode_time > 0 else "-"
    prefill = f"{prompt / metrics.time_to_first_token:.0f} tok/s" if metrics.time_to_first_token > 0 else "-"
    reasons = dict.fromkeys(str(one.finish_reason) for one in output.outputs)
    return (
        f"load {load_seconds:.2f} s | prompt {prompt} tokens, first token after "
        f"{metrics.time_to_first_token:.2f} s ({prefill}) | {generated} tokens generated ({decode}) | "
        f"ended by: {', '.join(reasons)}"
    )
