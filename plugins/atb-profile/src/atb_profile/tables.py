# SPDX-License-Identifier: Apache-2.0
"""Prints profiles as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atb_profile.limits import Limits
    from atb_profile.recorded import Recorded, Row
    from atb_profile.recorder import Call


def profile_text(profile: Recorded, limits: Limits | None = None) -> str:
    """Returns a table by op and one by module for each phase, and what is outside of the engine."""
    lines: list[str] = []
    inside = 0.0
    for phase, calls in profile.phases().items():
        seconds = sum(call.end - call.begin for call in calls) * 1e-9
        inside += seconds
        by_op = profile.rows("op", phase)
        tokens = sum(_tokens(call) for call in calls)
        in_nodes = sum(row.seconds for row in by_op)
        told = f"{phase}: {len(calls)} steps, {tokens} tokens, {seconds:.3f} s, {tokens / seconds:.1f} tokens/s"
        if not by_op:
            lines.append(told)
            continue
        told += f"; {_percent(in_nodes, seconds)} of it in nodes"
        if profile.clock:
            told += f", {_percent(_between_nodes(calls), seconds)} between them, where the device has nothing to do"
        lines.append(told)
        lines += table(by_op, seconds, limits)
        lines.append("")
        lines += table(profile.rows("module", phase), seconds, limits)
        lines.append("")
    if profile.clock:
        lines.append(
            f"times of nodes: events on {profile.clock}. Each node was launched by itself, for which the host takes "
            "longer than without a profile; CANN's msprof has the kernels inside of a node"
        )
    if any(not call.runs for call in profile.calls):
        lines.append(
            f"NO times of nodes: the backend {profile.backend} has none. Steps are by the clock of this process"
        )
    outside = profile.seconds - inside
    lines.append(
        f"outside of the engine (scheduling, sampling, text, waiting): {outside:.3f} s, "
        f"{_percent(outside, profile.seconds)} of {profile.seconds:.3f} s"
    )
    if limits is not None:
        lines.append(str(limits))
    if profile.dropped:
        lines.append(f"NOT recorded for want of memory: {profile.dropped} steps")
    return "\n".join(lines)


def _between_nodes(calls: Sequence[Call]) -> float:
    """Returns the seconds between the nodes of runs on a device."""
    gaps = 0
    for (times,) in (run.threads for call in calls for run in call.runs):
        gaps += sum(begin - end for end, begin in zip(times[1:-1:2], times[2::2], strict=True))
    return gaps * 1e-9


def table(rows: Sequence[Row], seconds: float, limits: Limits | None) -> list[str]:
    """Returns the lines of one table; shares are of `seconds`."""
    header = ["", "count", "ms", "share", "busy", "GB/s", "GFLOP/s"]
    if limits is not None:
        header += ["of read", "of products"]
    body = [_cells(row, seconds, limits) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = []
    for name, *numbers in (header, *body):
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    return lines


def _cells(row: Row, seconds: float, limits: Limits | None) -> list[str]:
    known = row.costed > 0
    cells = [
        row.name,
        str(row.count),
        f"{row.seconds * 1e3:.2f}",
        _percent(row.seconds, seconds),
        _percent(row.busy, row.seconds * row.threads),
        f"{row.bandwidth * 1e-9:.2f}" if known else "?",
        f"{row.rate * 1e-9:.1f}" if known else "?",
    ]
    if limits is not None:
        cells.append(_percent(row.bandwidth, limits.read) if known else "?")
        cells.append(_percent(row.rate, limits.products) if known and limits.products else "?")
    return cells


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _tokens(call: Call) -> int:
    shape = call.shapes.get("input_ids", (0,))
    return shape[0]
