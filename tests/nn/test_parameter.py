# SPDX-License-Identifier: Apache-2.0
"""Parameters: names and shapes without memory, and what becomes of real weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atb_core import nn
from atb_core.errors import WeightsError
from atb_core.graph import DataType, Network
from atb_core.graph.arrays import to_torch
from atb_core.nn.parameter import Parameter, WeightSource


def test_a_parameter_is_named_by_prefix_and_suffix() -> None:
    assert Parameter("model.norm", "weight").name == "model.norm.weight"
    assert Parameter("", "weight").name == "weight"


def test_a_parameter_is_a_declaration_that_its_module_knows() -> None:
    module = nn.Module()
    module.weight = Parameter("m", "weight", (100_000, 100_000), DataType.BF16)
    ((name, found),) = module.named_parameters()
    assert (name, found.declared_shape, found.declared_dtype) == ("weight", (100_000, 100_000), DataType.BF16)


def test_get_tensor_gives_a_symbolic_tensor_and_tells_the_network() -> None:
    with Network() as net:
        tensor = Parameter("m", "weight", (4, 8), DataType.FLOAT16).get_tensor()
        unknown = Parameter("m", "bias").get_tensor()
    assert (tensor.name, tensor.shape, tensor.dtype) == ("m.weight", (4, 8), DataType.FLOAT16)
    assert (unknown.shape, unknown.dtype) == (None, None)
    assert net.weights_keys == {"m.weight", "m.bias"}


def test_real_weights_pass_through_the_processors_into_the_declared_type() -> None:
    parameter = Parameter("m", "weight", (3, 2), DataType.BF16)
    parameter.register_processor(lambda array: array.T)
    parameter.register_processor(lambda array: to_torch(array) * 2)
    for given in (torch.arange(6.0).view(2, 3), np.arange(6.0, dtype=np.float32).reshape(2, 3)):
        made = parameter.process(given)
        assert made.flags.c_contiguous
        assert torch.equal(to_torch(made), torch.tensor([[0, 6], [2, 8], [4, 10]], dtype=torch.bfloat16))


def test_a_weight_of_another_shape_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"m\.weight has shape \[2, 3\] where \[3, 2\] is needed"):
        Parameter("m", "weight", (3, 2)).process(torch.zeros(2, 3))


def test_by_default_a_parameter_comes_from_the_tensor_of_its_name() -> None:
    assert Parameter("m", "weight", (3, 2)).sources == (WeightSource("m.weight", (3, 2)),)
