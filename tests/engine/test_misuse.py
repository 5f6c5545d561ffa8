# SPDX-License-Identifier: Apache-2.0
"""Whatever a caller passes to backends and engines, the error is typed and names the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from engine.networks import HIDDEN, VOCAB, tiny_network, tiny_weights

from atb_core.engine import build_engine, get_backend
from atb_core.engine.cpu import CpuBackend
from atb_core.engine.native import NativeStore
from atb_core.errors import AtbError, EngineError
from atb_core.graph import DataType, Network, Tensor

IDS = torch.tensor([1, 2, 3])
HUGE = 10**40


@pytest.fixture(params=["cpu", "reference"])
def engine(request: pytest.FixtureRequest) -> Any:
    made = get_backend(request.param).build(tiny_network())
    made.set_weights(tiny_weights())
    return made


@pytest.mark.parametrize("value", [None, 5, "ids", [IDS], {"ids"}, IDS], ids=lambda v: type(v).__name__)
def test_what_is_no_dict_of_tensors_is_named(engine: Any, value: Any) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "inputs must be a dict": lambda: engine.forward(value),
        "weights must be a dict": lambda: engine.set_weights(value),
        "KV caches must be a dict": lambda: engine.set_kv_caches(value),
        "inputs must be a dict, ": lambda: engine.set_constants(value),
    }
    if value is not None:
        calls["outputs must be a dict"] = lambda: engine.forward({"ids": IDS}, value)
        calls["runtime_params must be a dict"] = lambda: engine.forward({"ids": IDS}, None, value)
    for message, call in calls.items():
        with pytest.raises(EngineError, match=message.rstrip(", ")) as error:
            call()
        assert f"not {type(value).__name__}" in str(error.value)


def test_keys_and_values_of_the_wrong_kind_are_named(engine: Any) -> None:
    with pytest.raises(EngineError, match=r"missing: ids; unknown: 7"):
        engine.forward({7: IDS})
    with pytest.raises(EngineError, match=r"unknown: \('norm',\), 1, None"):
        engine.set_weights({("norm",): IDS, None: IDS, 1: IDS})
    for value in (None, [1, 2, 3], 3):
        with pytest.raises(EngineError, match=r"'ids' must be a torch\.Tensor or a numpy array, not "):
            engine.forward({"ids": value})
        with pytest.raises(EngineError, match=r"'logits' must be a torch\.Tensor or a numpy array, not "):
            engine.forward({"ids": IDS}, {"logits": value})
        with pytest.raises(EngineError, match=r"'norm' must be a torch\.Tensor or a numpy array, not "):
            engine.set_weights({"norm": value})
    with pytest.raises(EngineError, match=r"'ids': torch\.complex64 is not supported"):
        engine.forward({"ids": IDS.to(torch.complex64).conj()})


@pytest.mark.parametrize(
    ("begin", "named"),
    [(-1, "not -1"), (2**70, "many digits"), ("0", "not str"), (1.0, "not float"), (True, "not bool"), (None, "NoneT")],
)
def test_the_first_row_of_a_part_is_an_integer_in_range(engine: Any, begin: Any, named: str) -> None:
    with pytest.raises(EngineError, match=f"the first row of a part of weight 'embedding' .*{named}"):
        engine.set_weight_part("embedding", begin, torch.ones(1, HIDDEN))


def test_parts_that_are_no_tensor_or_of_no_weight_are_named(engine: Any) -> None:
    with pytest.raises(
        EngineError, match=r"a part of weight 'embedding' must be a torch\.Tensor or a numpy array, not list"
    ):
        engine.set_weight_part("embedding", 0, [[1.0]])
    with pytest.raises(EngineError, match="the name of a weight must be a str, not list"):
        engine.set_weight_part(["embedding"], 0, torch.ones(1, HIDDEN))
    with pytest.raises(EngineError, match="unknown: bias"):
        engine.set_weight_part("bias", 0, torch.ones(1, HIDDEN))


@pytest.mark.parametrize(
    "threads", [0, -1, 1025, 2**31, HUGE, "2", 2.0, True, [2]], ids=lambda v: f"{type(v).__name__} {v!r:.12}"
)
def test_numbers_of_threads_that_cannot_be_are_refused(threads: Any) -> None:
    with pytest.raises(EngineError, match="num_threads"):
        CpuBackend(num_threads=threads)


@pytest.mark.parametrize("variable", ["ATB_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("value", ["0", "-3", "two", "1e3", "9" * 400])
def test_a_bad_number_in_the_environment_names_its_variable(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ATB_NUM_THREADS", raising=False)
    monkeypatch.setenv(variable, value)
    with pytest.raises(EngineError, match=variable):
        CpuBackend()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"isa": 5}, "isa must be a str, not int"),
        ({"isa": "sse"}, "'sse' is not an instruction set level"),
        ({"small_work": -1}, "small_work must be an integer from 0"),
        ({"small_work": HUGE}, "small_work must be an integer from 0"),
        ({"small_work": "1"}, "small_work must be an integer, not str"),
        ({"threads": 2}, r"has no option threads\. Its options: num_threads, isa, small_work\."),
    ],
)
def test_options_of_backends_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(EngineError, match=named):
        get_backend("cpu", **options)


@pytest.mark.parametrize("name", [None, 5, ["cpu"], "CPU", ""])
def test_a_backend_that_does_not_exist_is_named(name: Any) -> None:
    with pytest.raises(EngineError, match="no installed plugin offers the backend"):
        get_backend(name)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        ((2**40, 128, 8, 64), torch.float16, "the key/value cache needs .* MiB more for each layer"),
        ((2**40, 2**40), torch.float16, r"a key/value cache of shape \[1099511627776, 1099511627776\]"),
        ((HUGE, 2), torch.float16, "dimension 0 of a key/value cache"),
        ((4, -1), torch.float32, "dimension 1 of a key/value cache must be an integer from 0 to .*, not -1"),
        ((4, 2.0), torch.float32, "dimension 1 of a key/value cache must be an integer, not float"),
        (7, torch.float32, "the shape of a key/value cache must be a Sequence, not int"),
        ((4, 2), "float32", "a key/value cache: float32 is not supported"),
        ((4, 2), torch.complex64, "a key/value cache: torch.complex64 is not supported"),
        ((4, 2), None, "a key/value cache: None is not supported"),
    ],
)
def test_caches_that_cannot_be_are_refused(backend: str, shape: Any, dtype: Any, named: str) -> None:
    with pytest.raises(EngineError, match=named):
        get_backend(backend).allocate(shape, dtype)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_networks_and_stores_of_the_wrong_kind_are_named(backend: str) -> None:
    for value in (None, "net", [tiny_network()]):
        with pytest.raises(AtbError, match="the network of an engine must be a Network, not "):
            build_engine(value, backend=backend)  # type: ignore[arg-type]
        with pytest.raises(AtbError, match="the network of an engine must be a Network, not "):
            get_backend(backend).build(value)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"store must be a .*, not list"):
        get_backend(backend).build(tiny_network(), [1])


def test_a_store_takes_tensors_by_name() -> None:
    store = NativeStore(CpuBackend())
    row = torch.ones(1, HIDDEN)
    for call, named in (
        (lambda: store.set(5, row), "the name of a weight must be a str, not int"),
        (lambda: store.set("\ud800", row), "the name of a weight"),
        (lambda: store.set("w", None), r"weight 'w' must be a torch\.Tensor"),
        (lambda: store.set_part("w", -1, row, VOCAB), "the first row of weight 'w' .* not -1"),
        (lambda: store.set_part("w", 0, row, HUGE), "the number of rows of weight 'w'"),
        (lambda: store.spec("w"), "'w'"),
    ):
        with pytest.raises(EngineError, match=named):
            call()


def test_names_that_are_no_text_of_unicode_are_refused() -> None:
    with Network("surrogate") as net:
        net.mark_output(Tensor("x\ud800", (2,), DataType.FLOAT) * 2.0, "y")
    with pytest.raises(AtbError, match="tensor 0 of the graph has a name that is no text in UTF-8"):
        CpuBackend().build(net)


def test_arrays_that_must_not_be_written_are_refused_as_outputs(engine: Any) -> None:
    logits = engine.forward({"ids": IDS.numpy()})["logits"]
    assert isinstance(logits, np.ndarray)
    assert np.array_equal(logits, engine.forward({"ids": IDS})["logits"].numpy())
    logits.flags.writeable = False
    with pytest.raises(EngineError, match="output 'logits' is read-only"):
        engine.forward({"ids": IDS.numpy()}, {"logits": logits})
