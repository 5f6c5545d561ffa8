# SPDX-License-Identifier: Apache-2.0
"""Small networks and helpers that several tests of the CPU engine use."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atb_core.engine.base import Engine
from atb_core.engine.cpu import CpuBackend, CpuEngine
from atb_core.engine.native import NativeStore
from atb_core.graph import DataType, Dim, Network, Tensor, record
from atb_core.graph.arrays import data_type
from atb_core.nn.functional import gather, linear, rms_norm
from atb_testing.op_samples import Sample

HIDDEN, VOCAB = 40, 24


def tiny_network(dtype: DataType = DataType.FLOAT, shapes: bool = True) -> Network:
    """ids -> rows of an embedding -> norm -> product with the same embedding: a decoder without its layers."""

    def tensor(name: str, shape: tuple[int | Dim, ...], kind: DataType) -> Tensor:
        return Tensor(name, shape, kind) if shapes else Tensor(name)

    with Network("tiny") as net:
        embedding = tensor("embedding", (VOCAB, HIDDEN), dtype)
        rows = gather(embedding, 0, tensor("ids", (Dim("tokens"),), DataType.INT64))
        normed = rms_norm(rows, tensor("norm", (HIDDEN,), dtype), 1e-6)
        net.mark_output(linear(normed, embedding, None, False, True), "logits")
    net.weights_keys |= {"embedding", "norm"}
    return net


def tiny_weights(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {"embedding": torch.randn(VOCAB, HIDDEN).to(dtype), "norm": torch.rand(HIDDEN).to(dtype)}


def tiny_engine(num_threads: int = 2, shapes: bool = True, store: NativeStore | None = None) -> CpuEngine:
    engine = CpuBackend(num_threads=num_threads).build(tiny_network(shapes=shapes), store)
    engine.set_weights(tiny_weights())
    return engine


def sample_engine(sample: Sample, inputs: Sequence[torch.Tensor], backend: CpuBackend) -> Engine:
    """An engine of one op, inputs in0, in1, ..., outputs out0, ..."""
    with Network("one op") as net:
        declared = [Tensor(f"in{i}", tuple(v.shape), data_type(v.dtype)) for i, v in enumerate(inputs)]
        for i, tensor in enumerate(record(sample.op, declared)):
            net.mark_output(tensor, f"out{i}")
    return backend.build(net)
