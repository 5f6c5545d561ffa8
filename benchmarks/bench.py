# SPDX-License-Identifier: Apache-2.0
"""Measures speed beside what the machine can do in the same minute, and beside other programs.

In each round, the limits are measured first: the read stream and oneDNN's products. Then all tasks run in random order,
and of each task our engine and every peer in random order. Figures are medians of rounds, with the lowest and highest;
comparisons are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from checkpoints import CACHE, QWEN2_05B, write_checkpoint
from loading import measure_loading
from subjects import PEERS, installed_peers, ours

from atb_core.names import QUANTIZATIONS
from atb_profile.bench.machine import load, machine
from atb_profile.bench.runs import OURS, SCHEMA, Subject, Task, measure
from atb_profile.bench.tables import groups, median_of
from atb_profile.limits import measure_limits

#: Columns and inner sizes of the matrices of a layer.
_HIDDEN, _INNER = QWEN2_05B.hidden_size, QWEN2_05B.intermediate_size
_KV = QWEN2_05B.num_key_value_heads * QWEN2_05B.head_dim
SHAPES = ((_HIDDEN + 2 * _KV, _HIDDEN), (_HIDDEN, _HIDDEN), (2 * _INNER, _HIDDEN), (_HIDDEN, _INNER))
#: Least shares of the limits, for `--guard`: far below what a quiet machine reaches.
LEAST = {"decode": 0.5, "prefill": 0.3}


def tasks(batches: Sequence[int], contexts: Sequence[int], threads: int, new: int) -> list[Task]:
    """Returns the tasks over batch, over context and over threads."""
    over_batch = [Task(batch, 64, new, threads) for batch in batches]
    over_context = [Task(1, context, new, threads) for context in contexts]
    over_threads = [Task(1, context, new, count) for count in range(1, threads) for context in (64, 512)]
    return list(dict.fromkeys([*over_batch, *over_context, *over_threads]))


def measured(
    chosen: Sequence[Task], names: Sequence[str], directory: Path, quantization: str | None, rounds: int
) -> dict[str, Any]:
    """Measures the tasks with our engine and, with the most threads, with the peers of these names."""
    longest = max(task.context + task.new for task in chosen) + 1
    counts = sorted({task.threads for task in chosen})
    runners = {count: ours(directory, count, longest, quantization) for count in counts}
    most = counts[-1]
    peers = {name: PEERS[name][1](directory, most, longest) for name in names}

    def subjects(task: Task) -> Mapping[str, Subject]:
        return {OURS: runners[task.threads], **(peers if task.threads == most else {})}

    return measure(
        chosen,
        subjects,
        lambda: [measure_limits(count, "bfloat16", SHAPES) for count in counts],
        QWEN2_05B.vocab_size,
        rounds,
        partial(print, flush=True),
    )


def tables(record: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    lines = ["| limit | threads | median (lowest to highest) |", "|---|---|---|"]
    for (threads,), rows in groups(record["limits"], "threads").items():
        lines.append(f"| read stream, GB/s | {threads} | {median_of([row['read'] * 1e-9 for row in rows])} |")
        products = median_of([row["products"] * 1e-9 for row in rows])
        lines.append(f"| oneDNN's packed products, 512 rows, GFLOP/s | {threads} | {products} |")
    lines += [
        "",
        "| batch | context | threads | phase | tokens/s | GB/s | of read | GFLOP/s | of products | most time |",
    ]
    lines.append("|" + "---|" * 10)
    for (threads, batch, context), rows in groups(record["samples"], "threads", "batch", "context").items():
        for phase in ("prefill", "decode"):
            if all(phase in row for row in rows):
                lines.append(_line(batch, context, threads, phase, rows))
    if record["pairs"]:
        lines += [
            "",
            "| seconds of the peer / ours | batch | context | first token | decode | all |",
            "|---|---|---|---|---|---|",
        ]
        for (peer, batch, context), rows in groups(record["pairs"], "peer", "batch", "context").items():
            ratios = [median_of([row[f"{kind}_ratio"] for row in rows]) for kind in ("first", "decode", "total")]
            lines.append(f"| {peer} | {batch} | {context} | {' | '.join(ratios)} |")
    if loading := record.get("loading"):
        lines += ["", "| loading | |", "|---|---|", *(f"| {name} | {value} |" for name, value in loading.items())]
    return "\n".join(lines)


def _line(batch: int, context: int, threads: int, phase: str, rows: Sequence[dict[str, Any]]) -> str:
    each = [row[phase] for row in rows]
    shares: dict[str, list[float]] = defaultdict(list)
    for one in each:
        for name, share in one["shares"].items():
            shares[name].append(share)
    middle = {name: statistics.median(values) for name, values in shares.items()}
    most = ", ".join(f"{name} {100 * middle[name]:.0f} %" for name in sorted(middle, key=lambda n: -middle[n])[:3])
    cells = [
        median_of([row[f"{phase}_tokens_per_second"] for row in rows]),
        median_of([one["bytes_per_second"] * 1e-9 for one in each]),
        median_of([one["of_read"] for one in each]),
        median_of([one["flops_per_second"] * 1e-9 for one in each]),
        median_of([one["of_products"] for one in each]) if all(one["of_products"] for one in each) else "-",
        most,
    ]
    return f"| {batch} | {context} | {threads} | {phase} | {' | '.join(cells)} |"


def below(record: dict[str, Any]) -> list[str]:
    """Returns what is below `LEAST`: decode of one sequence beside the read stream, prefill beside the products."""
    found = []
    for (batch, context, threads), rows in groups(record["samples"], "batch", "context", "threads").items():
        for phase, limit, wanted in (("decode", "of_read", batch == 1), ("prefill", "of_products", context >= 512)):
            shares = [row[phase][limit] for row in rows if phase in row and row[phase][limit]]
            if wanted and shares and statistics.median(shares) < LEAST[phase]:
                found.append(
                    f"{phase} of {batch} x {context}, {threads} threads: {statistics.median(shares):.2f} of the limit"
                )
    return found


def main() -> None:
    """Measures, prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "qwen2-0.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--contexts", type=int, nargs="*", default=[64, 512, 2048, 8192, 16384])
    parser.add_argument("--new", type=int, default=33, help="tokens that are generated, the first among them")
    parser.add_argument("--quantization", choices=(*QUANTIZATIONS, "w8a8"), help="of our weights")
    parser.add_argument("--peers", nargs="*", default=installed_peers(), choices=list(PEERS))
    parser.add_argument("--smoke", action="store_true", help="one sequence, 64 and 512 tokens, no peers, two rounds")
    parser.add_argument("--guard", action="store_true", help="fail if speed is far below the limits of the machine")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    if args.smoke:
        args.rounds, args.batches, args.contexts, args.peers = 2, [1], [64, 512], []
    write_checkpoint(args.checkpoint, QWEN2_05B)
    chosen = tasks(args.batches, args.contexts, args.threads, args.new)
    about = machine(args.threads)
    loading = measure_loading(args.checkpoint, args.threads)
    record = measured(chosen, args.peers, args.checkpoint, args.quantization, args.rounds)
    about["quantization"] = args.quantization
    record = {"schema": SCHEMA, "machine": about, "model": asdict(QWEN2_05B), "loading": loading, **record}
    print(f"\n{about['processor']}, {about['isa']}, {about['date']}, load {about['load_average']} to {load()}\n")
    print(tables(record))
    if args.json:
        args.json.write_text(json.dumps(record, indent=1))
    if args.guard and (slow := below(record)):
        raise SystemExit("far below the limits of this machine:\n" + "\n".join(slow))


if __name__ == "__main__":
    main()
