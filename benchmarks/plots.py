# SPDX-License-Identifier: Apache-2.0
"""Draws the results of `bench.py --json` as SVG: roofline, over batch, over context, ours beside peers."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from atb_profile.bench.runs import SCHEMA

PHASES = ("prefill", "decode")


def medians(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one row for each task and phase of the largest number of threads, with medians."""
    most = max(row["threads"] for row in record["samples"])
    groups = defaultdict(list)
    for row in record["samples"]:
        for phase in PHASES:
            if row["threads"] == most and phase in row:
                groups[row["batch"], row["context"], phase].append(row)
    rows = []
    for (batch, context, phase), found in sorted(groups.items()):
        row = {"batch": batch, "context": context, "phase": phase}
        row["speed"] = statistics.median(each[f"{phase}_tokens_per_second"] for each in found)
        for name in ("bytes_per_second", "flops_per_second"):
            row[name] = statistics.median(each[phase][name] for each in found)
        rows.append(row)
    return rows


def roofline(record: dict[str, Any], axes: Any) -> None:
    """Draws operations a second over operations for each byte, below what the machine did in the same rounds."""
    most = max(row["threads"] for row in record["limits"])
    limits = [row for row in record["limits"] if row["threads"] == most]
    read, products = (statistics.median(row[name] for row in limits) for name in ("read", "products"))
    # The corner lies between powers of two.
    intensities = sorted([*(2**exponent for exponent in range(-2, 13)), products / read])
    axes.plot(intensities, [min(products, read * x) * 1e-9 for x in intensities], color="black", label="limits")
    for phase, marker in zip(PHASES, "os", strict=True):
        rows = [row for row in medians(record) if row["phase"] == phase]
        x = [row["flops_per_second"] / row["bytes_per_second"] for row in rows]
        axes.plot(x, [row["flops_per_second"] * 1e-9 for row in rows], marker, label=phase)
        for position, row in zip(x, rows, strict=True):
            text = f"{row['batch']} x {row['context']}"
            axes.annotate(text, (position, row["flops_per_second"] * 1e-9), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel="GFLOP/s", title="Roofline")
    axes.legend()


def over(record: dict[str, Any], axes: Any, key: str, fixed: tuple[str, int]) -> None:
    """Draws tokens a second over batch or context."""
    for phase, marker in zip(PHASES, "os", strict=True):
        rows = [row for row in medians(record) if row["phase"] == phase and row[fixed[0]] == fixed[1]]
        rows.sort(key=lambda row: row[key])
        axes.plot([row[key] for row in rows], [row["speed"] for row in rows], f"{marker}-", label=phase)
    axes.set(xscale="log", yscale="log", xlabel=key, ylabel="tokens/s", title=f"Over {key}, {fixed[0]} {fixed[1]}")
    axes.legend()


def peers(record: dict[str, Any], axes: Any) -> None:
    """Draws how many times as long peers take, with lowest and highest of the pairs."""
    groups = defaultdict(list)
    for row in record["pairs"]:
        for kind in ("first", "decode"):
            if f"{kind}_ratio" in row:
                groups[row["peer"], row["batch"], row["context"], kind].append(row[f"{kind}_ratio"])
    # The first one is at the bottom.
    keys = sorted(groups, reverse=True)
    names = [f"{peer}, {batch} x {context}, {kind}" for peer, batch, context, kind in keys]
    middle = [statistics.median(groups[key]) for key in keys]
    errors = [
        [m - min(groups[key]) for key, m in zip(keys, middle, strict=True)],
        [max(groups[key]) - m for key, m in zip(keys, middle, strict=True)],
    ]
    axes.barh(names, middle, xerr=errors)
    axes.axvline(1, color="black")
    axes.set(xlabel="seconds of the peer / ours", title="Beside peers")


def main() -> None:
    """Writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    record = json.loads(args.results.read_text())
    if record["schema"] != SCHEMA:
        raise SystemExit(f"{args.results} has schema {record['schema']}, this program reads {SCHEMA}")
    args.folder.mkdir(parents=True, exist_ok=True)
    smallest = min(row["context"] for row in record["samples"])
    drawings = {
        "roofline": roofline,
        "batch": lambda r, a: over(r, a, "batch", ("context", smallest)),
        "context": lambda r, a: over(r, a, "context", ("batch", 1)),
        **({"peers": peers} if record["pairs"] else {}),
    }
    about = record["machine"]
    for name, draw in drawings.items():
        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        draw(record, axes)
        figure.text(
            0, 0, f"{about['processor']}, {about['isa']}, {about['threads']} threads, {about['date'][:10]}", fontsize=6
        )
        figure.savefig(args.folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main()
