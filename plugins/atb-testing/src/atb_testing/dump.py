# SPDX-License-Identifier: Apache-2.0
"""Writes the values between the nodes of a model's networks to files, for `atb compare`.

A dump is a directory: `dump.json` describes the runs and the nodes, and each step has a file in safetensors with the
values by number of the node. Nothing in it is code.
"""

from __future__ import annotations

import errno
import fnmatch
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from atb_cli.output import writing
from atb_core.errors import AtbError, RequestError
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor
from atb_testing.observed import listen, mark, run_tokens
from atb_testing.probes import leaving

#: Number of the format of `dump.json`.
SCHEMA = 1
INDEX = "dump.json"
BASES = ("prefill", "decode")


class DumpError(AtbError):
    """Reports a directory that is no dump, or two dumps that cannot be compared."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint or "Dump again, the same model and tokens in both runs.")


@dataclass(frozen=True)
class Value:
    """A value that a node produces.

    Attributes:
        key: module, op and a number, the same in runs of one graph: `model.layers.0.mlp.down:Linear:0`.
        op: name of the op.
        module: path of the module that recorded the node.
        source: file and line that recorded it.
        inputs: keys of the values that the node reads; those of the network's inputs are left out.
        leaves: paths of the modules that only this value leaves: names that fusions seldom change.
        kept: true if the steps have the value.
    """

    key: str
    op: str
    module: str
    source: str
    inputs: tuple[str, ...]
    leaves: tuple[str, ...]
    kept: bool


def values_of(network: Network, patterns: Sequence[str] = ("*",)) -> list[tuple[Value, Tensor]]:
    """Returns the values of a network in order, without views; those that nothing reads are not kept.

    Args:
        network: the network.
        patterns: of module paths; values are kept where one matches the path or one of the modules above it.
    """
    count: Counter[str] = Counter()
    keys: dict[Tensor, str] = {}
    paths: dict[Tensor, list[str]] = {}
    for tensor, path in leaving(network):
        paths.setdefault(tensor, []).append(path)
    # Some engines cannot give what nothing reads, and no error of it goes on.
    read_by_some = {tensor for node in network.nodes for tensor in node.inputs} | set(network.outputs)
    found = []
    for node in network.nodes:
        if node.op.is_view:
            keys.update((output, keys[node.inputs[0]]) for output in node.outputs if node.inputs[0] in keys)
            continue
        read = tuple(keys[tensor] for tensor in node.inputs if tensor in keys)
        kept = _matches(node.module_path, patterns)
        for output in node.outputs:
            name = f"{node.module_path or '-'}:{node.op.name}"
            keys[output] = f"{name}:{count[name]}"
            count[name] += 1
            about = (node.op.name, node.module_path, node.source, read, tuple(sorted(paths.get(output, []))))
            found.append((Value(keys[output], *about, kept and output in read_by_some), output))
    return found


def _matches(path: str, patterns: Sequence[str]) -> bool:
    parts = path.split(".")
    above = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns for one in above)


def dump(
    model: Any,
    tokens: Sequence[int],
    directory: Path,
    patterns: Sequence[str] = ("*",),
    decoded: int = 1,
    leave_out: Sequence[str] = (),
    about: dict[str, Any] | None = None,
    runner: Any = None,
) -> int:
    """Runs a loaded model over a sequence and writes the values of its nodes; returns the number of values.

    Args:
        model: a model, as `atb_testing.open_model` returns it; it cannot be used for anything else afterwards.
        tokens: the sequence.
        directory: where the dump goes; must not exist, or be empty.
        patterns: module paths whose nodes are kept, with `*` and `?`.
        decoded: number of tokens at the end that run one by one.
        leave_out: names of fusion passes that do not run; `["All"]` for none.
        about: further facts for the index.
        runner: the model's runner, if it has one: several processes share its cache alone.

    Raises:
        RequestError: a pattern matches nothing, there are too few tokens, or the directory is not empty.
    """
    if not 0 <= decoded < len(tokens):
        raise RequestError(
            f"the prompt has {_counted(len(tokens), 'token')}, too few for a prefill and {_counted(decoded, 'step')} "
            "of decode",
            hint="Give a longer prompt, or fewer steps with --decode.",
        )
    with _new_directory(directory):
        return _dump(model, tokens, directory, patterns, decoded, leave_out, about, runner)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


@contextmanager
def _new_directory(directory: Path) -> Iterator[None]:
    """Makes a directory, which is emptied again if the work fails: half a dump is none."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        inside = next(directory.iterdir(), None)
    except OSError as error:
        raise RequestError(f"{directory} cannot be made: {error.strerror}", hint="Choose another directory.") from None
    if inside is not None:
        raise RequestError(f"{directory} is not empty", hint="Choose another directory, or remove it first.")
    try:
        yield
    except BaseException:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        raise


def _dump(
    model: Any,
    tokens: Sequence[int],
    directory: Path,
    patterns: Sequence[str],
    decoded: int,
    leave_out: Sequence[str],
    about: dict[str, Any] | None,
    runner: Any,
) -> int:
    steps = [("prefill", len(tokens) - decoded), *[("decode", 1)] * decoded]
    files = [f"step-{number:04}-{base}.safetensors" for number, (base, _) in enumerate(steps)]
    variants: dict[str, list[Value]] = {}
    left = list(files)
    total = 0

    def keep(values: dict[str, torch.Tensor]) -> None:
        nonlocal total
        total += len(values)
        # Several labels may be one tensor, which the format does not have.
        copies = {key: value.cpu().contiguous().clone() for key, value in values.items()}
        with writing(directory):
            try:
                save_file(copies, directory / left.pop(0))
            except SafetensorError as error:
                raise OSError(errno.EIO, str(error)) from None

    for base in BASES:
        network = model.variants.prepared(frozenset({base}), leave_out)
        values = values_of(network, patterns)
        variants[base] = [value for value, _ in values]
        _check_patterns(patterns, variants[base])
        labels = mark(network, [(value.key, tensor) for value, tensor in values if value.kept])
        listen(model, base, network, labels, keep)
    run_tokens(model, tokens, decoded, runner)
    index = {
        "schema": SCHEMA,
        **(about or {}),
        "left_out": list(leave_out),
        "tokens": list(tokens),
        "steps": [{"file": f, "variant": base, "tokens": n} for f, (base, n) in zip(files, steps, strict=True)],
        "variants": {base: [asdict(value) for value in values] for base, values in variants.items()},
    }
    with writing(directory):
        (directory / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return total


def _check_patterns(patterns: Sequence[str], values: Sequence[Value]) -> None:
    for pattern in patterns:
        if not any(_matches(value.module, [pattern]) for value in values):
            modules = list(dict.fromkeys(value.module for value in values if value.module))
            raise RequestError(
                f"no node is in a module {pattern!r}", hint=f"Modules are, for example, {', '.join(modules[1:6])}."
            )
