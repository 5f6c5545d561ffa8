# SPDX-License-Identifier: Apache-2.0
"""Engines read arrays of any library that has DLPack, in place, and refuse what numpy cannot read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dlpack_array import DeviceArray, ForeignArray
from engine.networks import tiny_network, tiny_weights

from atb_core.engine import get_backend
from atb_core.errors import EngineError
from atb_core.graph.arrays import from_dlpack

IDS = torch.tensor([1, 2, 3])


@pytest.fixture(params=[("cpu", True), ("cpu", False), ("reference", True)], ids=str)
def engine(request: pytest.FixtureRequest) -> Any:
    """An engine of a network with declared and, on the CPU, with open shapes."""
    backend, shapes = request.param
    made = get_backend(backend).build(tiny_network(shapes=shapes))
    made.set_weights(tiny_weights())
    return made


def test_an_input_of_another_library_gives_the_bits_of_numpys(engine: Any) -> None:
    given = engine.forward({"ids": ForeignArray(IDS)})["logits"]
    assert isinstance(given, np.ndarray)
    assert np.array_equal(given, engine.forward({"ids": IDS.numpy()})["logits"])


def test_the_memory_is_shared() -> None:
    values = torch.zeros(3)
    array = from_dlpack(ForeignArray(values))
    values[1] = 5
    assert array.tolist() == [0, 5, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (DeviceArray(IDS), "input 'ids' cannot be read from DeviceArray by DLPack"),
        (ForeignArray(torch.zeros(3, dtype=torch.bfloat16)), "input 'ids' cannot be read from ForeignArray by DLPack"),
        (ForeignArray(torch.arange(6)[::2]), "'ids' is not contiguous"),
        (ForeignArray(IDS.float()), "'ids' must be int64, not float32"),
    ],
    ids=["device", "bfloat16", "strides", "dtype"],
)
def test_what_cannot_be_read_is_named(value: ForeignArray, message: str) -> None:
    engine = get_backend("cpu").build(tiny_network())
    engine.set_weights(tiny_weights())
    with pytest.raises(EngineError, match=message):
        engine.forward({"ids": value})
