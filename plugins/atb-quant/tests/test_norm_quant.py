# SPDX-License-Identifier: Apache-2.0
"""A norm, the bias behind it and the rounding become one node where the backend has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from integer_files import CASES
from safetensors.torch import load_file, save_file

from atb_core import ModelRunner
from atb_core.engine import BACKENDS
from atb_core.errors import GraphError
from atb_core.graph import DataType, Network, Tensor, record
from atb_core.nn import functional as F
from atb_core.nn import quantized as Q
from atb_quant.norm_quant import PASSES, RmsNormQuant

NAME = RmsNormQuant.op_name()
WIDTH = 64


def simulated() -> bool:
    from importlib.util import find_spec

    return "atb-sim" in BACKENDS and find_spec("atb_sim") is not None


FUSING = ["reference", *(["atb-sim"] if simulated() else [])]


def chain(residual: bool, dtype: DataType = DataType.FLOAT16, extra: str = "", scales: int = 1) -> Network:
    """A norm of rows, or of a sum, with a bias and a rounding; `extra` is a value that is an output, too."""
    with Network() as net:
        x, other = (Tensor(name, (5, WIDTH), dtype) for name in ("x", "other"))
        weight, bias = (Tensor(name, (WIDTH,), dtype) for name in ("weight", "bias"))
        total = x + other if residual else x
        normalized = F.rms_norm(total, weight, 1e-6)
        shifted = normalized + bias
        scale, offset = Tensor("scale", (scales,), dtype), Tensor("offset", (scales,), DataType.INT8)
        net.mark_output(Q.quantize_per_channel(shifted, scale, offset), "integers")
        if residual:
            net.mark_output(total, "total")
        values = {"normalized": normalized, "shifted": shifted}
        if extra:
            net.mark_output(values[extra], extra)
    return net


def inputs(residual: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = {name: torch.randn(5, WIDTH, generator=generator).half() for name in ("x", "other")}
    vectors = {name: torch.randn(WIDTH, generator=generator).half() for name in ("weight", "bias")}
    given = {**rows, **vectors, "scale": torch.tensor([0.0625]).half(), "offset": torch.tensor([7], dtype=torch.int8)}
    return given if residual else {name: value for name, value in given.items() if name != "other"}


def ops(engine: Any) -> list[str]:
    return [node.op.name for node in engine.network.nodes]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("backend", FUSING)
def test_the_chain_is_one_node_that_rounds_once(backend: str, residual: bool) -> None:
    fused = chain(residual).build_engine(backend=backend)
    assert ops(fused) == [NAME]
    names = [each.name for each in PASSES]
    plain = chain(residual).build_engine(names, backend="reference")
    assert NAME not in ops(plain)
    given = inputs(residual)
    found, unfused = fused.forward(given), plain.forward(given)
    total = given["x"] + given["other"] if residual else given["x"]
    norm = torch.nn.functional.rms_norm(total.double(), (WIDTH,), given["weight"].double(), 1e-6)
    exact = ((norm + given["bias"].double()) / 0.0625 + 7).round().clamp(-128, 127)
    # A quotient near one half may be rounded either way.
    assert (found["integers"].double() - exact).abs().max() <= 1
    faults = [int((each["integers"].double() != exact).sum()) for each in (found, unfused)]
    assert faults[0] <= faults[1]
    if residual:
        assert torch.equal(found["total"], total)


def test_the_cpu_engine_runs_the_nodes_one_by_one() -> None:
    engine = chain(True).build_engine(backend="cpu")
    assert ops(engine) == ["AddRmsNorm", "Elewise", "QuantPerChannel"]


@pytest.mark.parametrize("extra", ["normalized", "shifted"])
def test_a_value_that_is_used_elsewhere_is_not_fused_away(extra: str) -> None:
    assert NAME not in ops(chain(False, extra=extra).build_engine(backend="reference"))


def test_other_types_and_scales_for_columns_stay_as_they_are() -> None:
    assert NAME not in ops(chain(False, DataType.BF16).build_engine(backend="reference"))
    assert NAME not in ops(chain(False, scales=WIDTH).build_engine(backend="reference"))


def test_shapes_that_do_not_fit_are_refused() -> None:
    x, offset = Tensor("x", (5, 8), DataType.FLOAT16), Tensor("o", (1,), DataType.INT8)
    vector, scale = Tensor("w", (8,), DataType.FLOAT16), Tensor("s", (2,), DataType.FLOAT16)
    with Network(), pytest.raises(GraphError, match="the inputs behind x have the shapes"):
        record(RmsNormQuant(), (x, vector, vector, scale, offset))


@pytest.mark.skipif(not simulated(), reason="needs the distribution atb-sim: pip install ./plugins/atb-sim")
def test_the_norms_of_a_model_with_biases_against_outliers_are_fused_on_ascend(tmp_path: Path) -> None:
    directory, _ = CASES["W8A8"].write(tmp_path, torch.float16)
    path = directory / "quant_model_weights.safetensors"
    tensors = load_file(path)
    shift = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)).half() / 100
    norms = [name for name in tensors if name.endswith("layernorm.weight")]
    save_file({**tensors, **{name.replace("weight", "bias"): shift.clone() for name in norms}}, path)
    with ModelRunner(directory, load_tokenizer=False, backend="atb-sim") as runner:
        fused = ops(runner.model.variants.get("decode").engine)
    # The last norm has no bias; projections behind attention and activation round inputs that come from no norm.
    found = fused.count(NAME), fused.count("QuantPerChannel"), fused.count("AddRmsNorm"), fused.count("RmsNorm")
    assert found == (len(norms), len(norms), 1, 0)
