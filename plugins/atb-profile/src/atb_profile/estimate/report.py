# SPDX-License-Identifier: Apache-2.0
"""Prints an estimate for a person."""

from __future__ import annotations

from collections.abc import Sequence

from atb_cli.output import aligned, size_text
from atb_profile.estimate.estimate import Bound, Estimate

_SMALLER = "fewer or shorter sequences (--batch, --context), more chips (--tp), or --quantization"


def report(result: Estimate, notes: Sequence[str] = ()) -> str:
    """Returns an estimate as text, with what else is to be said of it."""
    memory, device = result.memory, result.device
    is_cpu = device.backend == "cpu"
    most, least = ("about", "about") if is_cpu else ("at most", "at least")
    fits = "fits" if memory.fits else "does NOT fit"
    rows = {
        "weights": size_text(memory.weights)
        + ("" if is_cpu else " on each chip")
        + (f", matrices as {result.quantization} where the chip multiplies by them" if result.quantization else ""),
        "keys and values": f"{size_text(memory.kv)} for {_sequences(result.batch)} of {result.context} tokens",
        "workspace": size_text(memory.workspace),
        "memory": f"{fits} into {size_text(memory.usable)}; at most {memory.max_batch} such sequences do",
    }
    if not memory.fits:
        rows["next"] = f"it fits with {' or '.join(result.fits_with)}" if result.fits_with else _SMALLER
    lines = [
        "Times on this machine's processor from its measured limits."
        if is_cpu
        else f"Bounds for {result.ranks} x {device.soc} from published figures: real steps take longer."
        " Nothing was measured.",
        "",
        aligned(rows),
        "",
        f"decode: {most} {_rate(result.batch / result.decode.total)} tokens/s "
        f"({_rate(1 / result.decode.total)} for each of {_sequences(result.batch)})",
        *_step(result.decode),
        "",
        f"first token of a prompt of {result.prompt} tokens: after {least} {result.prefill.total * 1e3:,.1f} ms",
        *_step(result.prefill),
        "",
        f"what would make decode faster, by these {'limits' if is_cpu else 'bounds'}:",
        *(f"  {name}: {gain:.2f} x" for name, gain in result.advice.items()),
        "",
        "figures:",
    ]
    units = {
        "memory": "bytes", "bandwidth": "bytes/s", "products": "operations/s", "vector": "operations/s",
        "launch": "s", "link": "bytes/s",
    }  # fmt: skip
    lines += [f"  {name} {each.value:.4g} {units[name]}: {each.source}" for name, each in device.figures().items()]
    assumed = "10 % of the memory: assumed for the system"
    lines.append(f"  {assumed}" if device.launch else f"  an operation after another: assumed (--launch-us); {assumed}")
    lines += notes
    if unknown := result.decode.phase.unknown | result.prefill.phase.unknown:
        lines.append(f"NOT counted, for want of a cost: {', '.join(sorted(unknown))}")
    return "\n".join(lines)


def _step(step: Bound) -> list[str]:
    limits = sorted(step.seconds.items(), key=lambda item: -item[1])
    ops = sorted(step.by_op.items(), key=lambda item: -item[1])[:6]
    by_limit, by_op = (
        ", ".join(f"{name} {seconds / step.total:.0%}" for name, seconds in each if seconds >= 0.005 * step.total)
        for each in (limits, ops)
    )
    return [f"  bound by {step.largest}: {by_limit}", f"  {by_op}"]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _sequences(count: int) -> str:
    return "1 sequence" if count == 1 else f"{count} sequences"
