# SPDX-License-Identifier: Apache-2.0
"""Prints an estimate for a person."""

from __future__ import annotations

from atb_cli.output import aligned, size_text
from atb_profile.estimate.estimate import Bound, Estimate


def report(result: Estimate) -> str:
    """Returns an estimate as text."""
    memory, device = result.memory, result.device
    chips = f"{result.ranks} x {device.soc}"
    fits = "fits" if memory.fits else "does NOT fit"
    rows = {
        "weights": f"{size_text(memory.weights)} on each chip",
        "keys and values": f"{size_text(memory.kv)} for {result.batch} sequences of {result.context} tokens",
        "workspace": size_text(memory.workspace),
        "memory": f"{fits} into {size_text(memory.usable)}; at most {memory.max_batch} such sequences do",
    }
    lines = [
        f"Bounds for {chips} from published figures: real steps take longer. Nothing was measured.",
        "",
        aligned(rows),
        "",
        f"decode: at most {result.batch / result.decode.total:,.0f} tokens/s "
        f"({1 / result.decode.total:,.1f} for each of {result.batch} sequences)",
        *_step(result.decode),
        "",
        f"first token of a prompt of {result.prompt} tokens: after at least {result.prefill.total * 1e3:,.1f} ms",
        *_step(result.prefill),
        "",
        "what would make decode faster, by these bounds:",
        *(f"  {name}: {gain:.2f} x" for name, gain in result.advice.items()),
        "",
        "figures:",
    ]
    units = {"memory": "bytes", "bandwidth": "bytes/s", "products": "operations/s", "link": "bytes/s"}
    lines += [f"  {name} {each.value:.4g} {units[name]}: {each.source}" for name, each in device.figures().items()]
    lines.append("  an operation after another: assumed (--launch-us); 10 % of the memory: assumed for the system")
    if unknown := result.decode.phase.unknown | result.prefill.phase.unknown:
        lines.append(f"NOT counted, for want of a cost: {', '.join(sorted(unknown))}")
    return "\n".join(lines)


def _step(step: Bound) -> list[str]:
    limits = sorted(step.seconds.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {seconds / step.total:.0%}" for name, seconds in limits if seconds)
    ops = sorted(step.by_op.items(), key=lambda item: -item[1])[:6]
    return [
        f"  bound by {step.largest}: {shares}",
        "  " + ", ".join(f"{name} {seconds / step.total:.0%}" for name, seconds in ops),
    ]
