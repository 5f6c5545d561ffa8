# SPDX-License-Identifier: Apache-2.0
"""Compares two dumps: finds the first node, in the order of the graph, whose own values part."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from atb_core.files import open_regular, read_json
from atb_testing.dump import INDEX, SCHEMA, DumpError
from atb_testing.pairs import Pairs
from atb_testing.vendor.modules import ModuleDump, find_modules
from atb_testing.vendor.pairs import check_tokens, pairs_of_rounds, pairs_with_modules, pairs_with_round
from atb_testing.vendor.rounds import Round, find_round

#: Relative error that rounding and another order of summation explain in one node, by dtype.
ROUNDING = {torch.float32: 2e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
#: A node may make the error of its inputs this many times larger: norms and softmax of large values do.
GROWTH = 8.0
# Elements whose differences are in memory at a time, in float64.
_CHUNK = 1 << 24
_OURS_FIRST = "Give the dump of `atb dump` first."


@dataclass(frozen=True)
class Errors:
    """Says how far two values are apart.

    Attributes:
        relative: mean absolute difference, divided by the mean magnitude of the first value.
        largest: largest absolute difference.
        cosine: cosine of the angle between the values.
        row: first row (token) that differs by more than `relative` does on average.
        equal: true if all elements are equal.
    """

    relative: float
    largest: float
    cosine: float
    row: int
    equal: bool


@dataclass(frozen=True)
class Parted:
    """A value that the errors of the node's inputs do not explain."""

    step: int
    variant: str
    value: Mapping[str, Any]
    errors: Errors
    of_inputs: float
    last: str | None
    between: tuple[str, ...] = ()

    def __str__(self) -> str:
        value = self.value
        lines = [
            f"{value['op']} in {value['module'] or '(no module)'} at {value['source']} is the first to part, in step "
            f"{self.step} ({self.variant}), row {self.errors.row}:",
            f"  relative error {self.errors.relative:.2g}, its inputs' {self.of_inputs:.2g}; largest difference "
            f"{self.errors.largest:.3g}, cosine {self.errors.cosine:.6f}",
            f"  the last value that agrees is {self.last}" if self.last else "  no value agrees",
        ]
        if self.between:
            lines.append("  only one of the graphs has, between these: " + ", ".join(self.between))
        return "\n".join(lines)


@dataclass
class Comparison:
    """The result of comparing two dumps.

    Attributes:
        first: the first value that parts; `None` if there is none.
        compared: number of values that both have.
        equal: number of these that are equal in all bits.
        alone: number of values that only one of them has.
        worst: largest relative error.
        by_place: true if values were matched by layer, operation, size and order, not by names.
    """

    first: Parted | None = None
    compared: int = 0
    equal: int = 0
    alone: int = 0
    worst: float = 0.0
    by_place: bool = False


def compare(a: Path, b: Path, tolerance: float | None = None, step: int = 0) -> Comparison:
    """Compares two dumps of one sequence, value by value, in the order of the first one's graph.

    A value parts if its relative error is above the tolerance and more than `GROWTH` times that of the values that its
    node reads: errors of earlier nodes that only go on are not named. Values are matched by module, op and number;
    those that a fusion replaced by the module that they leave.

    Either may be the folder of a round that msProbe or msit saved on a card. Two of these are matched by the paths of
    their operations; a dump of `atb dump` and a round by layer, operation, size and order. `b` may also be what msProbe
    saved of the modules of a torch model; these are matched by their paths.

    Args:
        a: directory of a dump: what is right.
        b: directory of another: what is in question.
        tolerance: relative error that is no difference; `ROUNDING` of the narrower dtype by default. 0 compares bits.
        step: step of `a` that `b` is, where it is of msProbe or msit.

    Raises:
        DumpError: one is no dump, is damaged, or they are of different tokens.
    """
    result = Comparison()
    modules = find_modules(b)
    saved = [None if (each / INDEX).exists() else find_round(each) for each in (a, b)]
    if saved[0] is None and find_modules(a) is not None:
        raise DumpError(f"{a} is a dump of msProbe's", hint=_OURS_FIRST)
    if modules is not None:
        _compare_with_modules(result, a, ModuleDump(modules, step), step, tolerance)
    elif saved[0] and saved[1]:
        _compare_step(result, pairs_of_rounds(Round(saved[0]), Round(saved[1])), 0, "round", tolerance)
    elif saved[0]:
        raise DumpError(f"{a} is a round of the vendor's and {b} is none", hint=_OURS_FIRST)
    elif saved[1]:
        _compare_with_round(result, a, Round(saved[1]), step, tolerance)
    else:
        _compare_dumps(result, a, b, tolerance)
    if not result.compared:
        raise DumpError(
            f"{a} and {b} have no value in common", hint="Were both of the same model, tokens and modules (--nodes)?"
        )
    return result


def _compare_dumps(result: Comparison, a: Path, b: Path, tolerance: float | None) -> None:
    first, second = _read_index(a), _read_index(b)
    for name in ("tokens", "steps"):
        if _shape(first[name]) != _shape(second[name]):
            raise DumpError(f"{a} and {b} are of different {name}", hint="Dump both with one prompt and --decode.")
    for number, (ours, theirs) in enumerate(zip(first["steps"], second["steps"], strict=True)):
        variant = ours["variant"]
        with _opened(a / ours["file"]) as left, _opened(b / theirs["file"]) as right:
            are_parts = first.get("ranks", 1) != second.get("ranks", 1)
            pairs = Pairs(first["variants"][variant], second["variants"][variant], left, right, are_parts)
            pairs.dtypes = first.get("dtype"), second.get("dtype")
            _compare_step(result, pairs, number, variant, tolerance)


def _compare_with_round(result: Comparison, a: Path, found: Round, step: int, tolerance: float | None) -> None:
    values, ours, tokens, dtype = _step_of(a, step)
    check_tokens(found, tokens)
    with _opened(a / ours["file"]) as left:
        pairs = pairs_with_round(values, left, found, ours["variant"])
        pairs.dtypes = (dtype,)
        _compare_step(result, pairs, step, ours["variant"], tolerance)
    result.by_place = True


def _compare_with_modules(result: Comparison, a: Path, found: ModuleDump, step: int, tolerance: float | None) -> None:
    values, ours, tokens, dtype = _step_of(a, step)
    found.check_tokens(tokens)
    with _opened(a / ours["file"]) as left:
        pairs = pairs_with_modules(values, left, found)
        pairs.dtypes = (dtype,)
        _compare_step(result, pairs, step, ours["variant"], tolerance)


def _step_of(a: Path, step: int) -> tuple[list[dict[str, Any]], dict[str, Any], list[int], Any]:
    """Returns the values of a step of a dump, what the index says of it, its tokens, and the model's dtype."""
    index = _read_index(a)
    if not 0 <= step < len(index["steps"]):
        raise DumpError(f"{a} has no step {step}; its steps are 0 to {len(index['steps']) - 1}")
    ours = index["steps"][step]
    begin = sum(each["tokens"] for each in index["steps"][:step])
    tokens = index["tokens"][begin : begin + ours["tokens"]]
    return index["variants"][ours["variant"]], ours, tokens, index.get("dtype")


def _compare_step(result: Comparison, pairs: Pairs, number: int, variant: str, tolerance: float | None) -> None:
    errors: dict[str, float] = {}
    last: tuple[str, str] | None = None
    partners = set()
    for value, partner in pairs:
        if partner is None:
            result.alone += 1
            continue
        partners.add(partner)
        x, y = map(_plain, pairs.tensors(value["key"], partner))
        if x.shape != y.shape:
            if pairs.are_parts:
                result.alone += 2
                continue
            raise DumpError(f"{value['key']} has shape {list(x.shape)} in one dump and {list(y.shape)} in the other")
        found = _errors(x, y)
        errors[value["key"]] = found.relative
        result.compared += 1
        result.equal += found.equal
        result.worst = max(result.worst, found.relative)
        if result.first is not None:
            continue
        known = [errors[key] for key in value["inputs"] if key in errors]
        # Errors that come from nodes that are not in the dumps must not be blamed on this one.
        unknown = len(known) < len(value["inputs"])
        of_inputs = max(known, default=0.0)
        base = _rounding(x, y, pairs.dtypes) if tolerance is None else tolerance
        limit = max(base * (GROWTH if unknown else 1), GROWTH * of_inputs)
        if found.equal or found.relative <= limit:
            last = (value["key"], partner)
            continue
        between = pairs.alone_between(last, (value["key"], partner))
        result.first = Parted(number, variant, value, found, of_inputs, last and last[0], between)
    result.alone += len(set(pairs.right.keys()) - partners)


def _rounding(x: torch.Tensor, y: torch.Tensor, dtypes: Sequence[Any]) -> float:
    """Returns the error of the narrowest type; logits are float32 where all that they are made of is not."""
    of_models = {str(dtype).removeprefix("torch."): error for dtype, error in ROUNDING.items()}
    return max(*(ROUNDING.get(each.dtype, 0.0) for each in (x, y)), *(of_models.get(str(d), 0.0) for d in dtypes), 0.0)


def _plain(x: torch.Tensor) -> torch.Tensor:
    """Returns a tensor that is compared with others: of float64 for types with which torch does not calculate."""
    if x.is_complex() or x.is_quantized or x.is_meta:
        raise DumpError(f"a value is a tensor of {x.dtype}, whose elements are no real numbers that are in the dump")
    return x.double() if x.is_floating_point() and x.dtype.itemsize == 1 else x.detach()


def _errors(x: torch.Tensor, y: torch.Tensor) -> Errors:
    if torch.equal(x, y):
        return Errors(0.0, 0.0, 1.0, 0, True)
    rows = x.shape[0] if x.dim() else 1
    p, q = (each.reshape(rows, -1) for each in (x, y))
    step = max(1, _CHUNK // p.shape[1])
    chunks = zip(torch.split(p, step), torch.split(q, step), strict=True)
    of_rows, largest, sums = zip(*(_sums(a.double(), b.double()) for a, b in chunks), strict=True)
    size, finite, dot, p_square, q_square = torch.stack(sums).sum(0).tolist()
    scale = max(size / finite, 1e-30) if finite else 1.0
    apart = torch.cat(of_rows) / p.shape[1] / scale
    relative = float(apart.mean())
    far = (apart >= relative).nonzero().flatten()
    cosine = dot / max(math.sqrt(p_square) * math.sqrt(q_square), 1e-30)
    return Errors(relative, float(max(largest)), cosine, int(far[0]) if len(far) else 0, False)


def _sums(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns of some rows: the sums of differences, the largest one, and sums for scale and cosine."""
    apart = (p - q).abs()
    # Both infinite, or both no number: the same.
    apart[(p == q) | (p.isnan() & q.isnan())] = 0
    apart[~apart.isfinite()] = float("inf")
    finite = p[p.isfinite()].abs()
    sums = finite.sum(), torch.tensor(float(len(finite))), (p * q).sum(), (p * p).sum(), (q * q).sum()
    return apart.sum(1), apart.max(), torch.stack([each.double() for each in sums])


def _shape(value: Any) -> Any:
    """Returns what has to be the same in two indexes: tokens, or the variants and sizes of steps."""
    if all(isinstance(each, dict) for each in value):
        return [(each["variant"], each["tokens"]) for each in value]
    return value


def _read_index(directory: Path) -> dict[str, Any]:
    index = read_json(directory / INDEX, DumpError, 1 << 28)
    if index is None:
        raise DumpError(f"{directory} has no {INDEX}", hint="`atb dump MODEL -o DIR` writes a dump.")
    if index.get("schema") != SCHEMA:
        raise DumpError(f"{directory} is a dump of schema {index.get('schema')!r:.20}; this version reads {SCHEMA}")
    problem = _index_problem(index)
    if problem is not None:
        raise DumpError(f"{directory / INDEX} is damaged: {problem}")
    return index


def _index_problem(index: Mapping[str, Any]) -> str | None:
    tokens, steps, variants = (index.get(name) for name in ("tokens", "steps", "variants"))
    if not (isinstance(tokens, list) and isinstance(steps, list) and isinstance(variants, dict)):
        return "tokens, steps or variants are missing"
    if not all(type(token) is int for token in tokens):
        return "a token is no number"
    for step in steps:
        if not isinstance(step, dict) or step.get("variant") not in list(variants):
            return "a step has no variant"
        if type(step.get("tokens")) is not int or step["tokens"] < 1:
            return "a step has no number of tokens"
        name = step.get("file")
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
            return f"a step's file is {name!r:.80}"
    lists = {"inputs": list, "leaves": list, "key": str, "op": str, "module": str, "source": str}
    for values in variants.values():
        if not isinstance(values, list):
            return "a variant has no list of values"
        for value in values:
            if not isinstance(value, dict) or not all(isinstance(value.get(n), kind) for n, kind in lists.items()):
                return "a value is not described as one"
            if not all(isinstance(text, str) for name in ("inputs", "leaves") for text in value[name]):
                return "a value has inputs that are no names"
        if len({value["key"] for value in values}) < len(values):
            return "two values have the same key"
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a file of a step; errors name it."""
    try:
        os.close(open_regular(path, DumpError))
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, MemoryError, SafetensorError) as error:
        raise DumpError(f"{path} cannot be read: {error}") from None
