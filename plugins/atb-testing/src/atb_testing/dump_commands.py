# SPDX-License-Identifier: Apache-2.0
"""The commands `atb dump` and `atb compare`: values between the nodes of two runs, and where they part."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import click

from atb_cli.options import BackendName, finite, load_runner, model_argument
from atb_cli.output import note, say
from atb_core.errors import AtbError
from atb_core.names import DTYPES, QUANTIZATIONS

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_DUMP = click.Path(exists=True, file_okay=False, path_type=Path)


class PartedError(AtbError):
    """Reports two runs that part by more than rounding."""


@click.command("dump", short_help="Write the values between the nodes of a model.")
@model_argument
@click.option("--output", "-o", type=_DIRECTORY, required=True, metavar="DIR", help="Where the dump goes.")
@click.option("--nodes", "patterns", multiple=True, default=("*",), show_default=True, metavar="PATTERN",
              help="Modules whose nodes are written, such as 'model.layers.*.self_attn'; repeatable.")  # fmt: skip
@click.option("--prompt", default="The capital of France is", show_default=True, help="Text that is run.")
@click.option("--token-ids", metavar="IDS", help="Tokens instead of a text, separated by commas.")
@click.option("--decode", "decoded", type=click.IntRange(min=0), default=1, show_default=True, metavar="N",
              help="Tokens at the end of the prompt that run one by one.")  # fmt: skip
@click.option("--backend", type=BackendName(), default="cpu", show_default=True, help="What runs the graphs.")
@click.option("--dtype", type=click.Choice(("auto", *DTYPES)), default="auto", show_default=True,
              help="Element type; auto takes the checkpoint's.")  # fmt: skip
@click.option("--quantization", type=click.Choice(QUANTIZATIONS),
              help="Quantise the weights on loading.")  # fmt: skip
@click.option("--tp", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
              help="Processes that share the model, the first of which is dumped. Needs atb-parallel.")  # fmt: skip
@click.option("--leave-out", multiple=True, metavar="PASS", help="Fusion that does not run; All for none.")
def dump_command(
    model: str, output: Path, patterns: tuple[str, ...], prompt: str, token_ids: str | None, decoded: int,
    backend: str, dtype: str, quantization: str | None, tp: int,
    leave_out: tuple[str, ...],
) -> None:  # fmt: skip
    """Run MODEL over a prompt and write what its nodes compute, for `atb compare`.

    All tokens are given, so that two runs see the same ones: the prompt but its last tokens in a prefill, then these
    one by one.
    """
    from atb_testing.dump import dump

    tokens = _tokens(model, prompt, token_ids)
    with load_runner(
        model, backend=backend, dtype=dtype, quantization=quantization, tensor_parallel_size=tp, load_tokenizer=False,
        max_model_len=max(len(tokens), 16), max_num_seqs=1, enable_prefix_caching=False,
    ) as runner:  # fmt: skip
        about = {
            "model": model, "backend": backend, "dtype": runner.model.dtype.short, "quantization": quantization,
            "ranks": tp,
        }  # fmt: skip
        count = dump(runner.model, tokens, output, patterns, decoded, leave_out, about, runner)
    note(f"{count} values of {decoded + 1} steps are in {output}")


def _tokens(model: str, prompt: str, token_ids: str | None) -> list[int]:
    if token_ids is not None:
        try:
            found = [int(text) for text in token_ids.split(",")]
            if not all(0 <= token < 1 << 31 for token in found):
                raise ValueError
            return found
        except ValueError:
            raise click.UsageError(f"--token-ids {token_ids!r:.80}: write numbers with commas, 1,2,3") from None
    from atb_core.checkpoint import open_checkpoint
    from atb_core.runner.tokenizer import Tokenizer

    return Tokenizer(open_checkpoint(model).tokenizer_parts()).encode(prompt)


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns an object of JSON, which has no infinity and no NaN: these become text."""
    return {key: str(value) if isinstance(value, float) and not isfinite(value) else value for key, value in pairs}


@click.command("compare", short_help="Find the first node where two dumps part.")
@click.argument("first", type=_DUMP)
@click.argument("second", type=_DUMP)
@click.option("--tolerance", type=click.FloatRange(min=0), callback=finite, metavar="X",
              help="Relative error that is no difference; 0 compares bits. [default: rounding]")  # fmt: skip
@click.option("--step", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
              help="Step of FIRST that SECOND is, where it is of msProbe or msit.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare_command(first: Path, second: Path, tolerance: float | None, step: int, as_json: bool) -> None:
    """Compare two dumps of `atb dump`, FIRST being what is right.

    SECOND, or both, may be what msProbe or msit saved of ATB's operations on a card: the folder of one round. SECOND
    may also be what msProbe saved of the modules of a torch model.

    Names the first node, in the order of the graph, whose values differ by more than rounding and by more than those it
    reads. Exit status 1 if there is one.
    """
    from atb_testing.compare import compare

    result = compare(first, second, tolerance, step)
    if as_json:
        click.echo(json.dumps(asdict(result, dict_factory=_strict), indent=2))
    else:
        say(
            f"{result.compared} values compared, {result.equal} equal in all bits; largest relative error "
            f"{result.worst:.2g}; {result.alone} values are in one dump only\n"
        )
        if result.by_place:
            say("Values were matched by layer, operation, size and order: ATB's dump has no names of modules.\n")
    if result.first is not None:
        raise PartedError(str(result.first), hint="Dump the module alone with --nodes, or leave out passes.")
