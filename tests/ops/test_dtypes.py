# SPDX-License-Identifier: Apache-2.0
"""Dtypes that an op refuses are refused while it is recorded, with op, input, dtypes and the author's line."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from ops.cases import OPS

from atb_core.errors import AtbError, GraphError
from atb_core.graph import DataType, Network, Op, Tensor, record
from atb_core.graph.arrays import data_type, dtype_to_torch
from atb_core.graph.ops import AddRmsNorm, Linear, SelfAttention
from atb_core.nn import functional as F
from atb_testing.one_op import engine_for, inputs_for
from atb_testing.op_samples import Sample, samples_of

DTYPES = [dtype_to_torch(dtype) for dtype in DataType]
#: Every op with each of its sets of inputs, smallest sample first.
SAMPLES = {
    f"{name}-{'-'.join(sample.op.operands)}-{getattr(sample.op, 'elewise_type', '')}": sample
    for name, op in OPS.items()
    if "cpu" in op.backends
    for sample in samples_of(op)
}


def neighbours(sample: Sample) -> list[list[torch.Tensor]]:
    """The sample's inputs in bfloat16, with any dtype for up to two of them."""
    given = inputs_for(sample, torch.bfloat16)
    found = {}
    for (first, second), dtypes in product(combinations(range(len(given)), 2), product(DTYPES, repeat=2)):
        changed = list(given)
        changed[first], changed[second] = changed[first].to(dtypes[0]), changed[second].to(dtypes[1])
        found[tuple(value.dtype for value in changed)] = changed
    return list(found.values()) or [[given[0].to(dtype)] for dtype in DTYPES]


def refusal(sample: Sample, inputs: list[torch.Tensor]) -> str | None:
    """Why recording refuses these dtypes, `None` if it does not."""
    with Network():
        tensors = [Tensor(f"in{i}", tuple(v.shape), data_type(v.dtype)) for i, v in enumerate(inputs)]
        try:
            record(sample.op, tensors)
        except GraphError as error:
            return error.message
    return None


def engine_refusal(sample: Sample, inputs: list[torch.Tensor]) -> str | None:
    """Why the engine refuses to run these dtypes, `None` if it does not."""
    try:
        engine_for(sample, inputs, "cpu").forward({f"in{i}": value for i, value in enumerate(inputs)})
    except AtbError as error:
        return error.message
    return None


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
def test_recording_refuses_exactly_the_dtypes_that_the_engine_refuses(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [(inputs, refusal(sample, inputs)) for inputs in neighbours(sample)]
    # The engine's own checks are asked with those of the recording switched off.
    monkeypatch.setattr(Op, "check_dtypes", lambda self, *dtypes: None)
    monkeypatch.setattr(type(sample.op), "check_dtypes", lambda self, *dtypes: None)
    for inputs, refused in cases:
        at_run_time = engine_refusal(sample, inputs)
        dtypes = ", ".join(str(value.dtype) for value in inputs)
        assert (refused is None) == (at_run_time is None), f"({dtypes}): recording {refused}, engine {at_run_time}"


def test_the_error_names_op_input_both_dtypes_and_the_line() -> None:
    x, weight = Tensor("x", (2, 8), DataType.BF16), Tensor("w", (8,), DataType.FLOAT16)
    with Network(), pytest.raises(GraphError) as error:
        F.rms_norm(x, weight, 1e-6)
    text = error.value.message
    assert text.startswith("RmsNorm(x: bfloat16[2, 8], w: float16[8]), recorded at ") and f"{__file__}:" in text
    assert text.endswith("weight must be bfloat16 like x or float32, not float16")


def test_dtypes_are_checked_where_shapes_are_not_known() -> None:
    with Network(), pytest.raises(GraphError, match="b must be float16 like a, not bfloat16"):
        record(AddRmsNorm(), [Tensor("a", None, DataType.FLOAT16), Tensor("b", None, DataType.BF16), Tensor("w")])


def test_what_is_not_known_is_checked_when_real_tensors_arrive() -> None:
    with Network() as net:
        net.mark_output(F.rms_norm(Tensor("x"), Tensor("w"), 1e-6), "y")
    engine = net.build_engine(backend="cpu")
    with pytest.raises(AtbError, match=r"test_dtypes.py:.*weight must be bfloat16 like x or float32, not float16"):
        engine.forward({"x": torch.ones(2, 8).bfloat16(), "w": torch.ones(8).half()})


def test_an_optional_input_that_is_absent_shifts_no_rule() -> None:
    q, k = Tensor("q", (3, 2, 8), DataType.FLOAT16), Tensor("k", (3, 2, 8), DataType.FLOAT16)
    with Network(), pytest.raises(GraphError, match="seq_len must be int32, not int64"):
        record(SelfAttention(2, 2), [q, k, k, Tensor("lengths", (1,), DataType.INT64)])


def test_a_linear_gives_float32_or_the_dtype_of_x() -> None:
    x, weight = Tensor("x", (2, 8), DataType.BF16), Tensor("w", (4, 8), DataType.BF16)
    with Network(), pytest.raises(GraphError, match="out_dtype must be float32 or bfloat16 like x, not float16"):
        record(Linear(out_dtype=DataType.FLOAT16), [x, weight])
