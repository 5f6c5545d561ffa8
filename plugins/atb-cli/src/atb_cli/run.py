# SPDX-License-Identifier: Apache-2.0
"""`atb run`: one prompt and its streamed answer, or many prompts from a file."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atb_cli.answers import answer_record, json_text, times_text
from atb_cli.batch import answer_lines, last_answered, read_lines
from atb_cli.line_input import piped_text
from atb_cli.options import (
    OutputFile,
    Session,
    chat_options,
    model_argument,
    model_options,
    open_session,
    sampling_options,
)
from atb_cli.output import TextStream, note, note_of_cut, terminal_safe
from atb_core.errors import ModelNotFoundError

if TYPE_CHECKING:
    from atb_core.runner.outputs import RequestOutput, StreamChunk


@click.command(short_help="Answer a prompt, or many from a file.")
@model_argument
@click.argument("prompt", nargs=-1, metavar="[PROMPT]")
@click.option("--raw", is_flag=True, help="Continue the prompt as it is, without the model's chat template.")
@click.option("--system", "-s", metavar="TEXT", help="System message that goes before the prompt.")
@click.option("--stats", is_flag=True, help="Say on stderr how long loading, prefill and decode took.")
@click.option("--profile", "trace", type=OutputFile(), metavar="FILE",
              help="Write a trace for ui.perfetto.dev; say on stderr where time went. Needs atb-profile.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end instead of streaming text.")
@click.option("--n", type=click.IntRange(min=1), default=1, metavar="N",
              help="With --json or --input: number of answers; several are sampled.")  # fmt: skip
@click.option("--logprobs", type=click.IntRange(min=0), metavar="N",
              help="With --json or --input: log probability of each token and of the N likeliest.")  # fmt: skip
@click.option("--input", "source", metavar="FILE",
              help='Answer each line of FILE (- is stdin): a JSON text, or an object with "prompt", "messages" or'
              ' "prompt_token_ids", sampling parameters of its own, and an "id".')  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="With --input: where the answers go, one JSON object a line. [default: stdout]")  # fmt: skip
@click.option("--resume", is_flag=True, help="With --output: go on after the last answer in the file.")
@chat_options
@sampling_options
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    prompt: tuple[str, ...],
    raw: bool,
    system: str | None,
    stats: bool,
    trace: Path | None,
    as_json: bool,
    n: int,
    logprobs: int | None,
    source: str | None,
    output: Path | None,
    resume: bool,
    **options: Any,
) -> None:
    """Let MODEL answer PROMPT; text from stdin goes before it, and is the prompt if there is none or it is "-".

    Sampling options default to the model's generation config. Where it has none, decoding is greedy unless a sampling
    option is given.
    """
    _check_combination(ctx.params)
    options |= {"logprobs": logprobs, "n": n if n > 1 else None}
    if source is not None:
        lines = read_lines(source, raw, system)
        done = 0 if output is None else last_answered(output, resume)
        if lines := [line for line in lines if line.number > done]:
            answer_lines(open_session(model, **options), lines, source, output)
        return
    text = _prompt_text(prompt)
    try:
        session = open_session(model, **options)
    except ModelNotFoundError as error:
        if not prompt or not _names_a_model(prompt[0]):
            raise
        hint = f"MODEL goes before PROMPT: atb run {shlex.quote(prompt[0])} {shlex.quote(model)}"
        raise ModelNotFoundError(error.message, hint) from error
    if raw:
        chunks = session.runner.generate([text], session.sampling, stream=True, adapter_ids=session.adapter)
    else:
        session.check_chats()
        messages = [{"role": "system", "content": system}] if system is not None else []
        chunks = session.chat([*messages, {"role": "user", "content": text}])
    with nullcontext() if trace is None else session.runner.profile(trace) as profile:
        answer = _follow(chunks, show=not as_json)
    if as_json:
        click.echo(terminal_safe(json_text(_record(model, session, answer))))
    else:
        note_of_cut(answer, session.sampling)
    if stats:
        note(f"load {session.load_seconds:.2f} s | {times_text(answer)}")
    if profile is not None:
        note(str(profile))


def _names_a_model(prompt: str) -> bool:
    """Returns true for what is a model on the disk rather than a prompt, or has the form of a model's name."""
    return prompt.startswith(("pypi:", "modelscope:")) or prompt.endswith(".gguf") or os.path.isdir(prompt)


def _check_combination(given: dict[str, Any]) -> None:
    """Raises UsageError for options that would have no effect together."""
    prompt, source = given["prompt"], given["source"]
    is_json = given["as_json"] or source is not None
    of_template = given["thinking"] is not None or given["chat_template"] or given["chat_template_kwargs"]
    problems = {
        f'the prompt is one argument: quote it, "{" ".join(prompt)}"': len(prompt) > 1,
        "--logprobs needs --json": given["logprobs"] is not None and not is_json,
        "--n needs --json": given["n"] > 1 and not is_json,
        "--raw sends the prompt as it is, so there is no place for --system": given["raw"]
        and given["system"] is not None,
        "--raw uses no chat template, so there is nothing to set in one": given["raw"] and of_template,
        "--input has the prompts, so there is no place for PROMPT": source is not None and bool(prompt),
        "--output needs --input": given["output"] is not None and source is None,
        "--profile needs a single PROMPT": given["trace"] is not None and source is not None,
        "--resume needs --output": given["resume"] and given["output"] is None,
    }
    for problem, is_there in problems.items():
        if is_there:
            raise click.UsageError(problem)


def _prompt_text(prompt: tuple[str, ...]) -> str:
    is_terminal = sys.stdin.isatty()
    if is_terminal and not prompt:
        raise click.UsageError("no prompt: give PROMPT, pipe it in, or talk with `atb chat MODEL`")
    if prompt in ((), ("-",)):
        text = piped_text()
        if not text.strip():
            raise click.UsageError("no prompt: stdin is empty")
        return text
    piped = "" if is_terminal else piped_text()
    typed = prompt[0]
    with suppress(UnicodeEncodeError):
        # In a terminal that is ASCII to Python, what is typed is UTF-8 all the same.
        typed = os.fsencode(typed).decode(errors="surrogateescape")
    return f"{piped.rstrip()}\n\n{typed}" if piped.strip() else typed


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


def _record(model: str, session: Session, answer: RequestOutput) -> dict[str, Any]:
    runner = session.runner
    facts = {"model": model, "backend": runner.backend, "dtype": runner.config.torch_dtype}
    return {**facts, "load_time": round(session.load_seconds, 3), **answer_record(answer, runner)}
