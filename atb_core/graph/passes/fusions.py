# SPDX-License-Identifier: Apache-2.0
"""The core's fusions that a pattern and its replacement describe."""

from __future__ import annotations

from atb_core.graph.network import Network, record
from atb_core.graph.ops.activation import Activation, ActivationType
from atb_core.graph.ops.linear import Linear, LinearSwiglu
from atb_core.graph.ops.movement import Split
from atb_core.graph.ops.norm import AddRmsNorm, RmsNorm
from atb_core.graph.passes.pattern import Fusion, Match
from atb_core.graph.tensor import Tensor


def _add_then_norm(a: Tensor, b: Tensor, weight: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    total = a + b
    return record(RmsNorm(eps), (total, weight))[0], total


def _add_rms_norm(a: Tensor, b: Tensor, weight: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    normalized, _, total = record(AddRmsNorm(eps), (a, b, weight))
    return normalized, total


def _no_broadcast(match: Match) -> bool:
    a, b = match.tensors["a"], match.tensors["b"]
    return a.shape is not None and a.shape == b.shape and a.dtype == b.dtype


def _gate_times_up(gate_up: Tensor, *, dim: int, sizes: tuple[int, ...]) -> Tensor:
    gate, up = record(Split(dim, 2, sizes), (gate_up,))
    return record(Activation(ActivationType.SWISH), (gate,))[0] * up


def _swiglu(gate_up: Tensor, *, dim: int, sizes: tuple[int, ...]) -> Tensor:
    return record(Activation(ActivationType.SWIGLU), (gate_up,))[0]


def _halves_last_dimension(match: Match) -> bool:
    shape, sizes = match.tensors["gate_up"].shape, match.attributes["sizes"]
    return shape is not None and match.attributes["dim"] == len(shape) - 1 and len(set(sizes)) == 1


def _swiglu_of_linear(*operands: Tensor) -> Tensor:
    return _swiglu(record(Linear(has_bias=len(operands) == 3), operands)[0], dim=-1, sizes=())


def _linear_swiglu(*operands: Tensor) -> Tensor:
    return record(LinearSwiglu(has_bias=len(operands) == 3), operands)[0]


#: A residual addition and the RMS norm that follows it.
fuse_add_rms_norm = Fusion(_add_then_norm, _add_rms_norm, _no_broadcast)
#: `silu(gate) * up` of a split projection. SWIGLU rounds once where the unfused ops also round `silu(gate)`, and is
#: therefore more exact.
fuse_swiglu = Fusion(_gate_times_up, _swiglu, _halves_last_dimension)
_without_bias = Fusion(lambda x, weight: _swiglu_of_linear(x, weight), _linear_swiglu)
_with_bias = Fusion(lambda x, weight, bias: _swiglu_of_linear(x, weight, bias), _linear_swiglu)


def fuse_linear_swiglu(network: Network) -> Network:
    """Fuses the product of a matrix of gate and up, with bias or without, and SWIGLU into `LinearSwiglu`."""
    return _with_bias(_without_bias(network))
