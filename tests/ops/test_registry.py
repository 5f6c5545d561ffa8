# SPDX-License-Identifier: Apache-2.0
"""Every op of the registry: samples, rules, and all backends against the reference."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from ops.cases import CASES, FLOATS, OPS, assert_close

from atb_core.engine import BACKENDS, get_backend
from atb_core.errors import GraphError
from atb_core.graph.arrays import data_type
from atb_core.graph.ops import Elewise, SelfAttention
from atb_testing.one_op import engine_for, inputs_for
from atb_testing.op_samples import Sample, samples_of


@pytest.mark.parametrize("name", OPS)
def test_an_op_declares_samples_backends_and_documentation(name: str) -> None:
    op = OPS[name]
    assert list(samples_of(op)), f"{name} has no samples"
    assert "reference" in op.backends and op.backends <= set(BACKENDS)
    assert op.__doc__ and not op.__doc__.startswith(f"{name}("), f"{name} is not documented"
    assert dataclasses.is_dataclass(op)


@pytest.mark.parametrize("sample", CASES)
def test_the_shape_and_type_rules_are_those_of_the_reference(sample: Sample) -> None:
    for dtype in FLOATS:
        inputs = inputs_for(sample, dtype)
        shapes = [tuple(value.shape) for value in inputs]
        op = sample.op.resolve(*shapes)
        results = sample.op.reference(*(value.clone() for value in inputs))
        assert [tuple(value.shape) for value in results] == list(op.infer_shapes(*shapes))
        types = op.infer_dtypes(*(data_type(value.dtype) for value in inputs))
        assert [data_type(value.dtype) for value in results] == list(types)


@pytest.mark.parametrize("shapes", [True, False], ids=["declared", "undeclared"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("sample", CASES)
def test_the_cpu_engine_agrees_with_the_reference(sample: Sample, dtype: torch.dtype, shapes: bool) -> None:
    if "cpu" not in sample.op.backends:
        pytest.skip(f"{sample.op.name} does not claim the cpu backend")
    results = []
    for backend in ("reference", "cpu"):
        inputs = inputs_for(sample, dtype)
        out = engine_for(sample, inputs, backend, shapes).forward({f"in{i}": v for i, v in enumerate(inputs)})
        results.append([*out.values(), *(inputs[i] for i in sample.op.writes)])
    assert_close(*results)


def test_the_cpu_backend_has_the_ops_that_claim_it() -> None:
    assert get_backend("cpu").name == "cpu"
    claimed = {name for name, op in OPS.items() if "cpu" in op.backends}
    assert claimed >= {"Linear", "RmsNorm", "Rope", "SelfAttention", "PagedAttention", "ReshapeAndCache"}


def test_unknown_enumerators_are_refused_with_the_known_ones() -> None:
    with pytest.raises(GraphError, match="ELEWISE_ADD"):
        Elewise("ELEWISE_PLUS")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="MASK_TYPE_NORM"):
        SelfAttention(4, 2, mask_type="MASK_TYPE_ALIBY")  # type: ignore[arg-type]


def test_heads_must_share_key_value_heads_evenly() -> None:
    with pytest.raises(GraphError, match="evenly"):
        SelfAttention(7, 2)
