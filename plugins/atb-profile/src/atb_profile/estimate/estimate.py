# SPDX-License-Identifier: Apache-2.0
"""Bounds on the time of steps: a roofline for each node of the graph (Williams et al., "Roofline", 2009)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atb_profile.estimate.devices import Device
from atb_profile.estimate.workload import Phase, Workload

# Share of the memory that is left to CANN, the allocator and fragments. An assumption.
_RESERVED = 0.1
MEMORY, PRODUCTS, VECTOR, LAUNCHES, LINK = "memory", "products", "vector", "launches", "link"


@dataclass(frozen=True)
class Assumptions:
    """Holds what no data sheet says.

    Attributes:
        launch: seconds from one operation to the next on the device.
    """

    launch: float = 3e-6


@dataclass(frozen=True)
class Bound:
    """Least time of a step.

    Attributes:
        phase: the step.
        seconds: by what takes them: `memory`, `products`, `vector`, `launches`, `link`.
        by_op: seconds of each kind of op, launches included.
    """

    phase: Phase
    seconds: Mapping[str, float]
    by_op: Mapping[str, float]

    @property
    def total(self) -> float:
        """Returns the seconds of the step."""
        return sum(self.seconds.values())

    @property
    def largest(self) -> str:
        """Returns what takes most of the time."""
        return max(self.seconds, key=lambda name: self.seconds[name])


def bound(phase: Phase, device: Device, assumptions: Assumptions) -> Bound:
    """Returns the least time of a step on a device: for each node the larger of its bytes' and its operations' time."""
    seconds = dict.fromkeys((MEMORY, PRODUCTS, VECTOR, LAUNCHES, LINK), 0.0)
    by_op: dict[str, float] = {}
    for work in phase.work:
        nbytes = work.cost.bytes
        memory, products, vector = nbytes / device.bandwidth.value, work.cost.flops / device.products.value, 0.0
        if device.vector is not None:
            products -= work.vector / device.products.value
            vector = work.vector / device.vector.value
        # A view is not launched.
        launch = assumptions.launch if nbytes else 0.0
        if memory >= products + vector:
            seconds[MEMORY] += memory
        else:
            seconds[PRODUCTS] += products
            seconds[VECTOR] += vector
        seconds[LAUNCHES] += launch
        by_op[work.op] = by_op.get(work.op, 0.0) + max(memory, products + vector) + launch
    if phase.sent and device.link is not None:
        seconds[LINK] = phase.sent / device.link.value
        by_op["AllReduce"] = by_op.get("AllReduce", 0.0) + seconds[LINK]
    return Bound(phase, seconds, by_op)


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank.

    Attributes:
        weights: of its part of the model.
        kv: keys and values of the workload's sequences.
        workspace: intermediate values of the larger step.
        usable: device memory without what is reserved.
        max_batch: number of sequences of this context that fit; 0 if not even the weights do.
    """

    weights: int
    kv: int
    workspace: int
    usable: int
    max_batch: int

    @property
    def fits(self) -> bool:
        """Returns true if everything has room."""
        return self.weights + self.kv + self.workspace <= self.usable


@dataclass(frozen=True)
class Estimate:
    """Holds what a workload takes on a device, at least.

    Attributes:
        device: the device.
        ranks: number of chips.
        batch, context, prompt: sequences that decode together, their length, and the length of a prompt, in tokens.
        memory: what one rank holds.
        quantization: what matrices of linears are, `int8` or `int4`; `None`: of the model's dtype.
        decode, prefill: bounds of the two steps.
        advice: what would help, with the decode rate relative to this one, the best first.
        fits_with: those of the other forms that have room in memory.
    """

    device: Device
    ranks: int
    batch: int
    context: int
    prompt: int
    quantization: str | None
    memory: Memory
    decode: Bound
    prefill: Bound
    advice: Mapping[str, float]
    fits_with: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns all figures; times in seconds, sizes in bytes, rates in tokens a second."""
        figures = {name: figure._asdict() for name, figure in self.device.figures().items()}
        steps = {
            step.phase.name: {
                "seconds_at_least": step.total, "by_limit": dict(step.seconds), "by_op": dict(step.by_op),
                "flops": step.phase.flops, "bytes": step.phase.nbytes, "bytes_sent": step.phase.sent,
                "ops_without_cost": sorted(step.phase.unknown), "bound_by": step.largest,
            }
            for step in (self.decode, self.prefill)
        }  # fmt: skip
        memory = {**vars(self.memory), "fits": self.memory.fits}
        return {
            "soc": self.device.soc, "ranks": self.ranks, "batch": self.batch, "context": self.context,
            "prompt": self.prompt, "quantization": self.quantization, "figures": figures, "memory": memory, **steps,
            "tokens_per_second_at_most": self.batch / self.decode.total,
            "time_to_first_token_at_least": self.prefill.total, "advice": dict(self.advice),
            "fits_with": list(self.fits_with),
        }  # fmt: skip


def estimate(
    workload: Workload,
    device: Device,
    *,
    batch: int,
    context: int,
    prompt: int,
    others: Mapping[str, Workload] | None = None,
    assumptions: Assumptions | None = None,
) -> Estimate:
    """Estimates a workload on a device.

    Args:
        workload: the model, divided among ranks.
        device: what each rank runs on.
        batch: number of sequences that decode together.
        context: their length in tokens.
        prompt: length of a prompt in tokens.
        others: the same model in other forms, by what to say of them.
        assumptions: what no data sheet says.
    """
    assumed = assumptions or Assumptions()
    decode = workload.decode(batch, context)
    now, first = bound(decode, device, assumed), bound(workload.prefill(prompt), device, assumed)
    other = bound(workload.decode(2 * batch, context), device, assumed).total
    advice = {"twice as many sequences": 2 * now.total / other}
    for name, each in (others or {}).items():
        advice[name] = now.total / bound(each.decode(batch, context), device, assumed).total
    advice = dict(sorted(advice.items(), key=lambda item: -item[1]))
    workspace = max(decode.peak, first.phase.peak)
    memory = _memory(workload, device, batch, context, workspace)
    fits_with = [name for name, each in (others or {}).items() if _memory(each, device, batch, context, workspace).fits]
    return Estimate(
        device, workload.ranks, batch, context, prompt, workload.quantization, memory, now, first, advice, fits_with
    )


def _memory(workload: Workload, device: Device, batch: int, context: int, workspace: int) -> Memory:
    usable = int(device.memory.value * (1 - _RESERVED))
    one = workload.kv_bytes_per_token * context
    room = usable - workload.weight_bytes - workspace
    return Memory(workload.weight_bytes, batch * one, workspace, usable, max(0, room // one))
