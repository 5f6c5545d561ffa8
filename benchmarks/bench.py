# SPDX-License-Identifier: Apache-2.0
"""Measures speed beside what the machine can do in the same minute, and beside other programs.

In each round, the limits are measured first: the read stream and oneDNN's products. Then all tasks run in random order,
and of each task our engine and every peer in random order. Figures are medians of rounds, with the lowest and highest;
comparisons are medians of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from checkpoints import CACHE, QWEN2_05B, write_checkpoint
from loading import measure_loading
from machine import load, machine
from subjects import PEERS, Ours, Prompts, Subject, Times, installed_peers

from atb_core.names import QUANTIZATIONS
from atb_profile import Limits
from atb_profile.limits import product_rate, read_bandwidth
from atb_profile.profile import Profile

#: Number of the format of the JSON.
SCHEMA = 1
#: Columns and inner sizes of the matrices of a layer.
_HIDDEN, _INNER = QWEN2_05B.hidden_size, QWEN2_05B.intermediate_size
_KV = QWEN2_05B.num_key_value_heads * QWEN2_05B.head_dim
SHAPES = ((_HIDDEN + 2 * _KV, _HIDDEN), (_HIDDEN, _HIDDEN), (2 * _INNER, _HIDDEN), (_HIDDEN, _INNER))
#: Least shares of the limits, for `--guard`: far below what a quiet machine reaches.
LEAST = {"decode": 0.5, "prefill": 0.3}


@dataclass(frozen=True)
class Task:
    """One run: `batch` prompts of `context` tokens, each continued by `new` tokens."""

    batch: int
    context: int
    new: int
    threads: int

    @property
    def name(self) -> str:
        """Returns the name in tables."""
        return f"{self.batch} x ({self.context}+{self.new}), {self.threads} threads"

    def prompts(self, seed: int) -> Prompts:
        """Returns random prompts; no two rounds have the same."""
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(2, QWEN2_05B.vocab_size, (self.batch, self.context), generator=generator)
        return [list(map(int, row)) for row in ids]


def tasks(batches: Sequence[int], contexts: Sequence[int], threads: int, new: int) -> list[Task]:
    """Returns the tasks over batch, over context and over threads."""
    over_batch = [Task(batch, 64, new, threads) for batch in batches]
    over_context = [Task(1, context, new, threads) for context in contexts]
    over_threads = [Task(1, context, new, count) for count in range(1, threads) for context in (64, 512)]
    return list(dict.fromkeys([*over_batch, *over_context, *over_threads]))


def sample(task: Task, times: Times, limits: Limits) -> dict[str, Any]:
    """Returns the figures of one run of ours: speeds, and bytes and operations beside the limits of the round."""
    figures: dict[str, Any] = {
        "prefill_tokens_per_second": task.batch * task.context / times.first,
        "time_to_first_token": times.first,
    }
    if task.new > 1:
        figures["decode_tokens_per_second"] = task.batch * (task.new - 1) / (times.total - times.first)
    assert times.profile is not None
    for phase, variants in (("prefill", ("prefill", "mixed")), ("decode", ("decode",))):
        rows = [row for variant in variants for row in times.profile.rows("op", variant)]
        calls = [call for call in times.profile.calls if call.name in variants]
        seconds = sum(call.end - call.begin for call in calls) * 1e-9
        if not seconds:
            continue
        bandwidth, rate = (sum(getattr(row, name) for row in rows) / seconds for name in ("bytes", "flops"))
        shares: dict[str, float] = defaultdict(float)
        for row in rows:
            shares[row.name] += row.seconds / seconds
        figures[phase] = {
            "bytes_per_second": bandwidth,
            "flops_per_second": rate,
            "of_read": bandwidth / limits.read,
            "of_products": rate / limits.products if limits.products else None,
            "shares": {name: round(share, 4) for name, share in shares.items()},
            "host_share": 1 - seconds / _span(times.profile),
        }
    return figures


def _span(profile: Profile) -> float:
    """Returns the seconds from the first to the last call."""
    return (profile.calls[-1].end - profile.calls[0].begin) * 1e-9


def measure(
    chosen: Sequence[Task], names: Sequence[str], directory: Path, quantization: str | None, rounds: int, say: Any
) -> dict[str, Any]:
    """Runs all rounds; the first one is not counted."""
    longest = max(task.context + task.new for task in chosen) + 1
    counts = sorted({task.threads for task in chosen})
    ours = {count: Ours(directory, count, longest, quantization) for count in counts}
    most = max(ours)
    peers = {name: PEERS[name][1](directory, most, longest) for name in names}
    order = random.Random(0)
    record: dict[str, Any] = {"limits": [], "samples": [], "pairs": []}
    for round_ in range(rounds + 1):
        limits = {
            count: Limits(count, read_bandwidth(count), product_rate(count, "bfloat16", SHAPES), "bfloat16")
            for count in ours
        }
        if round_:
            record["limits"] += [{"round": round_, "load": load(), **each._asdict()} for each in limits.values()]
        for task in order.sample(list(chosen), len(chosen)):
            subjects: dict[str, Subject] = {"ours": ours[task.threads]}
            if task.threads == most:
                subjects |= peers
            prompts = task.prompts(round_)
            found = {n: subjects[n].times(prompts, task.new) for n in order.sample(list(subjects), len(subjects))}
            say(f"round {round_}, {task.name}: " + ", ".join(f"{n} {t.total:.2f} s" for n, t in found.items()))
            if not round_:
                continue
            mine = sample(task, found["ours"], limits[task.threads])
            record["samples"].append({"round": round_, "load": load(), **asdict(task), **mine})
            for name, times in found.items():
                if name != "ours":
                    record["pairs"].append(_pair(round_, task, name, found["ours"], times))
    return record


def _pair(round_: int, task: Task, peer: str, ours: Times, theirs: Times) -> dict[str, Any]:
    pair = {"round": round_, "peer": peer, **asdict(task)}
    pair["first_ratio"] = theirs.first / ours.first
    pair["total_ratio"] = theirs.total / ours.total
    if task.new > 1:
        pair["decode_ratio"] = (theirs.total - theirs.first) / (ours.total - ours.first)
    return pair


def median_of(values: Sequence[float]) -> str:
    """Formats the median, with the lowest and the highest."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _groups(rows: Sequence[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return dict(sorted(groups.items()))


def tables(record: dict[str, Any]) -> str:
    """Formats the results in Markdown."""
    lines = ["| limit | threads | median (lowest to highest) |", "|---|---|---|"]
    for (threads,), rows in _groups(record["limits"], "threads").items():
        lines.append(f"| read stream, GB/s | {threads} | {median_of([row['read'] * 1e-9 for row in rows])} |")
        products = median_of([row["products"] * 1e-9 for row in rows])
        lines.append(f"| oneDNN's packed products, 512 rows, GFLOP/s | {threads} | {products} |")
    lines += [
        "",
        "| batch | context | threads | phase | tokens/s | GB/s | of read | GFLOP/s | of products | most time |",
    ]
    lines.append("|" + "---|" * 10)
    for (threads, batch, context), rows in _groups(record["samples"], "threads", "batch", "context").items():
        for phase in ("prefill", "decode"):
            if all(phase in row for row in rows):
                lines.append(_line(batch, context, threads, phase, rows))
    if record["pairs"]:
        lines += [
            "",
            "| seconds of the peer / ours | batch | context | first token | decode | all |",
            "|---|---|---|---|---|---|",
        ]
        for (peer, batch, context), rows in _groups(record["pairs"], "peer", "batch", "context").items():
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
    for (batch, context, threads), rows in _groups(record["samples"], "batch", "context", "threads").items():
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
    say = partial(print, flush=True)
    record = measure(chosen, args.peers, args.checkpoint, args.quantization, args.rounds, say)
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
