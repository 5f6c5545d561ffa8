# SPDX-License-Identifier: Apache-2.0
"""Prints records of runs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from atb_cli.output import table

Rows: TypeAlias = Sequence[Mapping[str, Any]]


def median_of(values: Sequence[float]) -> str:
    """Formats the median, with the lowest and the highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def groups(rows: Rows, *keys: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Returns the rows by their values of some keys, in order."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[tuple(row[key] for key in keys)].append(row)
    return dict(sorted(found.items()))


def limits_text(limits: Rows) -> str:
    """Returns a line about the limits of all rounds."""
    read, products = ([row[name] * 1e-9 for row in limits] for name in ("read", "products"))
    told = f"limits, measured in each round: read stream {median_of(read)} GB/s; "
    dtype = limits[0]["dtype"]
    if not all(products):
        return told + f"torch has no packed products in {dtype}"
    return told + f"oneDNN's packed products in {dtype}, 512 rows, {median_of(products)} GFLOP/s"


def latency_table(samples: Rows) -> str:
    """Returns a line for each length of a prompt: its first token, and those that follow."""
    header = (
        "prompt",
        "first token, ms",
        "prompt, tokens/s",
        "of products",
        "token, ms",
        "decode, tokens/s",
        "of read",
    )
    rows = []
    for (context,), found in groups(samples, "context").items():
        decode = _column(found, "decode_tokens_per_second")
        rows.append((
            str(context),
            _cell([1e3 * each for each in _column(found, "time_to_first_token")]),
            _cell(_column(found, "prefill_tokens_per_second")),
            _cell(_column(found, "prefill", "of_products")),
            _cell([1e3 / each for each in decode]),
            _cell(decode),
            _cell(_column(found, "decode", "of_read")),
        ))  # fmt: skip
    return table(header, rows)


def throughput_table(samples: Rows) -> str:
    """Returns a line for each number of sequences and length of their prompts."""
    header = (
        "sequences", "prompt", "all, tokens/s", "prompts, tokens/s", "of products", "decode, tokens/s", "of read",
        "of products",
    )  # fmt: skip
    columns = (
        ("tokens_per_second",), ("prefill_tokens_per_second",), ("prefill", "of_products"),
        ("decode_tokens_per_second",), ("decode", "of_read"), ("decode", "of_products"),
    )  # fmt: skip
    rows = [
        (str(batch), str(context), *(_cell(_column(found, *names)) for names in columns))
        for (context, batch), found in groups(samples, "context", "batch").items()
    ]
    return table(header, rows)


def _column(rows: Rows, *names: str) -> list[float]:
    """Returns the values that rows have under some names; those that have none are left out."""
    found: list[Any] = list(rows)
    for name in names:
        found = [each[name] for each in found if each.get(name) is not None]
    return found


def _cell(values: Sequence[float]) -> str:
    return median_of(values) if values else "-"
