# SPDX-License-Identifier: Apache-2.0
"""Every op that claims the Ascend backend, on the simulator, against the reference."""

from __future__ import annotations

import pytest
import torch
from ops.cases import CASES, OPS, assert_close

from atb_ascend.backend import load_simulator
from atb_core.errors import EngineError
from atb_testing.one_op import MISSING_ON_ATB, engine_for, inputs_for_atb
from atb_testing.op_samples import Sample, samples_of

pytest.importorskip("atb_sim", reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")

#: What the table of rules says of each op.
RULES = {rule["op"]: rule for rule in load_simulator().op_rules()}
ATB_CASES = [case for case in CASES if "atb" in case.values[0].op.backends]
HALVES = (torch.float16, torch.bfloat16)

#: Samples that ATB has no operation for, by their beginning and element type, and what is said of them.
REFUSED = {
    ("Linear: float32 result", torch.float16): "keeps the type of x",
    ("Linear: float32 result", torch.bfloat16): "keeps the type of x",
    **{("QuantLinear: float32 result", dtype): "products of int8 are" for dtype in HALVES},
    **{("QuantLinear: int32 result", dtype): "products of int8 are" for dtype in HALVES},
    **{("Cast: to int32", dtype): "int32" for dtype in HALVES},
    **{("Cast: to int64", dtype): "int64" for dtype in HALVES},
    **{("Cast: int32 to float32", dtype): "int32" for dtype in HALVES},
    **{("PagedAttention: SPEC, block", dtype): "mask" for dtype in HALVES},
    **{("SelfAttention: capped scores", dtype): "no logits_soft_cap" for dtype in HALVES},
    **{("PagedAttention: capped scores", dtype): "no logits_soft_cap" for dtype in HALVES},
    **{("RmsNorm: three dimensions, 37", dtype): "32 bytes" for dtype in HALVES},
    **{("LayerNorm: three dimensions, 37", dtype): "32 bytes" for dtype in HALVES},
    **{("AddRmsNorm: one row of 100", dtype): "32 bytes" for dtype in HALVES},
    ("AllReduce: PROD", torch.bfloat16): "no product of bfloat16",
    ("Reduce: MAX", torch.float16): "bfloat16 or int32",
    ("Reduce: MIN", torch.float16): "bfloat16 or int32",
}


def refusal(name: str, dtype: torch.dtype) -> str | None:
    return next((why for (start, kind), why in REFUSED.items() if name.startswith(start) and kind is dtype), None)


def test_the_table_of_rules_and_the_registry_name_the_same_ops() -> None:
    claimed = {name for name, op in OPS.items() if "atb" in op.backends}
    # A view is no operation of ATB's; names with a dot are ops of packages.
    assert claimed == {*(name for name in RULES if "." not in name), "Reshape"}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("sample", "name"), [pytest.param(*c.values, c.id, id=c.id) for c in ATB_CASES])
def test_the_simulator_agrees_with_the_reference(sample: Sample, name: str, dtype: torch.dtype) -> None:
    missing = MISSING_ON_ATB.get(sample.op.name, ())
    if why := refusal(name, dtype):
        with pytest.raises(EngineError, match=why):
            engine_for(sample, inputs_for_atb(sample, dtype), "atb-sim", leave_out=missing)
        return
    results = []
    for backend in ("reference", "atb-sim"):
        inputs = inputs_for_atb(sample, dtype)
        engine = engine_for(sample, inputs, backend, leave_out=missing)
        out = engine.forward({f"in{i}": value for i, value in enumerate(inputs)})
        results.append([*out.values(), *(inputs[i] for i in sample.op.writes)])
    assert_close(*results)


def test_an_output_that_atb_does_not_have_is_refused() -> None:
    (sample, *_) = samples_of(OPS["AddRmsNorm"])
    with pytest.raises(EngineError, match="rstd"):
        engine_for(sample, inputs_for_atb(sample, torch.float16), "atb-sim")
