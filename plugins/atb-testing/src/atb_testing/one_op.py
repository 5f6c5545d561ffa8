# SPDX-License-Identifier: Apache-2.0
"""Builds networks of one op from its samples, and says how far two engines' results may be apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

import atb_core.graph.ops as ops_module
from atb_core.engine.base import Engine
from atb_core.graph import Network, Op, Tensor, record, registered_ops
from atb_core.graph.arrays import data_type, to_torch
from atb_core.graph.ops import SelfAttention
from atb_core.models.runtime.inputs import triangular_mask
from atb_testing.op_samples import Sample

__all__ = ["MISSING_ON_ATB", "core_ops", "engine_for", "inputs_for", "inputs_for_atb", "rounding"]

#: Outputs of an op that ATB's operation does not have, by position.
MISSING_ON_ATB = {"AddRmsNorm": (1,), "MoeTopkSoftmax": (2,)}


def core_ops() -> dict[str, type[Op]]:
    """Returns the ops of the core by name, without those of plugins."""
    return {name: op for name, op in registered_ops().items() if op.__module__.startswith(ops_module.__name__)}


def inputs_for(sample: Sample, dtype: torch.dtype) -> list[torch.Tensor]:
    """Returns copies of a sample's inputs, floats in `dtype` unless they are fixed."""
    return [
        value.to(dtype) if value.is_floating_point() and i not in sample.fixed else value.clone()
        for i, value in enumerate(sample.inputs)
    ]


def inputs_for_atb(sample: Sample, dtype: torch.dtype) -> list[torch.Tensor]:
    """Returns the inputs with the mask of causal attention that ATB reads; the other engines need none."""
    inputs = inputs_for(sample, dtype)
    if isinstance(sample.op, SelfAttention) and sample.op.is_triu_mask and sample.op.num_inputs == 5:
        inputs[3] = to_torch(triangular_mask(data_type(dtype)))
    return inputs


def engine_for(
    sample: Sample, inputs: Sequence[torch.Tensor], backend: str, shapes: bool = True, leave_out: Sequence[int] = ()
) -> Engine:
    """Builds an engine for the sample's op, with the inputs `in0`, `in1`, ... and the outputs `out0`, ...

    Args:
        sample: the op.
        inputs: give the dtypes and, with `shapes`, the shapes.
        backend: what runs it.
        shapes: false leaves the shapes open.
        leave_out: positions of outputs that nobody reads.

    Raises:
        EngineError: the backend has no such op.
    """
    with Network("one op") as net:
        declared = [
            Tensor(f"in{i}", tuple(v.shape) if shapes else None, data_type(v.dtype)) for i, v in enumerate(inputs)
        ]
        for i, tensor in enumerate(record(sample.op, declared)):
            if i not in leave_out:
                net.mark_output(tensor, f"out{i}")
    return net.build_engine(["All"], backend=backend)


def rounding(dtype: torch.dtype) -> float:
    """Returns one unit in the last place, relative; float32 results differ by the order of sums as well."""
    return {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(dtype, 0.0)
