# SPDX-License-Identifier: Apache-2.0
"""C++ has addresses of tensors: none is looked at that is gone, and a call that is refused leaves what was there."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tiny_decoder import HEAD, KV_HEADS, PARAMETERS, VOCAB, execute, model_torch, prefill_inputs, weights

from atb_core import ModelTorch
from atb_core.engine.cpu import CpuBackend
from atb_core.errors import EngineError

BACKENDS = pytest.mark.parametrize("backend", ["cpu", "atb-sim"])
TABLES = ("cosine_table", "sine_table", "attention_mask")


def with_constants(backend: str) -> tuple[ModelTorch, dict[str, torch.Tensor], torch.Tensor]:
    """A model that has its tables, the inputs without them, and the logits."""
    model, inputs = model_torch(backend), prefill_inputs()
    expected = execute(model, inputs)
    model.set_constant({name: inputs.pop(name) for name in TABLES})
    return model, inputs, expected


def fill_what_was_freed() -> list[torch.Tensor]:
    gc.collect()
    return [torch.full((64, HEAD), 50.0).half() for _ in range(64)]


@BACKENDS
@pytest.mark.parametrize("wrong", ["an output's shape", "an input's shape"])
def test_a_step_that_fails_leaves_nothing_of_its_inputs(backend: str, wrong: str) -> None:
    model, inputs, expected = with_constants(backend)
    tables = {name: value.clone() for name, value in prefill_inputs().items() if name in TABLES}
    rows = VOCAB + 1 if wrong == "an output's shape" else VOCAB
    if wrong == "an input's shape":
        tables["slots_mapping"] = torch.zeros(2, dtype=torch.int32)
    given = [{**inputs, **tables}.get(name) for name in model.input_names]
    with pytest.raises(EngineError, match=r"model_out|slots_mapping"):
        model.execute_out(given, [torch.empty(5, rows).half()])
    del given, tables
    kept = fill_what_was_freed()
    with pytest.raises(EngineError, match="'cosine_table', is missing"):
        execute(model, inputs)
    model.set_constant({name: prefill_inputs()[name] for name in TABLES})
    assert torch.equal(execute(model, inputs), expected)
    assert len(kept) == 64


@BACKENDS
def test_asking_for_the_shapes_of_outputs_binds_nothing(backend: str) -> None:
    model, inputs, expected = with_constants(backend)
    tables = {name: value.clone() for name, value in prefill_inputs().items() if name in TABLES}
    wrong = {**inputs, **tables, "lm_head_indices": torch.tensor([99])}  # found out while the step runs
    with pytest.raises(EngineError):
        execute(model, wrong)
    del tables, wrong
    kept = fill_what_was_freed()
    with pytest.raises(EngineError, match="is missing"):
        execute(model, inputs)
    assert torch.equal(execute(model, prefill_inputs()), expected)
    assert len(kept) == 64


@BACKENDS
def test_constants_are_taken_all_or_none(backend: str) -> None:
    model, inputs, expected = with_constants(backend)
    with pytest.raises(EngineError, match="'sine_table', is float32 where float16 is needed"):
        model.set_constant({"cosine_table": torch.zeros(8, HEAD).half(), "sine_table": torch.zeros(8, HEAD)})
    kept = fill_what_was_freed()
    assert torch.equal(execute(model, inputs), expected)
    assert len(kept) == 64


@BACKENDS
def test_caches_that_are_refused_leave_those_before(backend: str) -> None:
    model, inputs, expected = with_constants(backend)
    good = [model.backend.allocate((1, 16, KV_HEADS, HEAD), torch.float16) for _ in range(3)]
    with pytest.raises(EngineError):
        model.set_kv_cache(good[:2], [good[2], torch.zeros(1, 16, KV_HEADS, HEAD)])
    with pytest.raises(EngineError):
        model.set_kv_cache(good[:2], good[2:])
    del good
    kept = fill_what_was_freed()
    assert torch.equal(execute(model, inputs), expected)
    assert len(kept) == 64


@BACKENDS
def test_tensors_may_come_from_iterators(backend: str) -> None:
    expected = execute(model_torch(backend), prefill_inputs())
    model = ModelTorch("core_DecoderModel", backend=backend)
    model.set_param(PARAMETERS)
    model.set_weight(weight for weight in weights(model.weight_names))
    alive: list[weakref.ref[torch.Tensor]] = []

    def caches() -> Iterator[torch.Tensor]:
        for _ in range(2):
            cache = model.backend.allocate((1, 16, KV_HEADS, HEAD), torch.float16)
            alive.append(weakref.ref(cache))
            yield cache

    model.set_kv_cache(caches(), caches())
    kept = fill_what_was_freed()
    assert [ref() is not None for ref in alive] == [True] * 4
    inputs = prefill_inputs()
    assert torch.equal(model.execute(inputs.get(name) for name in model.input_names)[0], expected)
    assert len(kept) == 64


ANEW = """
import sys, threading
import torch
sys.path[:0] = {path!r}
from tiny_decoder import HEAD, KV_HEADS, PARAMETERS, execute, model_torch, prefill_inputs, weights
from atb_core.errors import EngineError

model, done = model_torch({backend!r}), False
def run():
    while not done:
        try:
            assert torch.isfinite(execute(model, prefill_inputs())).all()
        except EngineError:
            pass  # no weights or caches yet
threads = [threading.Thread(target=run) for _ in range(2)]
for thread in threads: thread.start()
for _ in range(40):
    model.set_param(PARAMETERS)
    model.set_weight(weights(model.weight_names))
    caches = [model.backend.allocate((64, 16, KV_HEADS, HEAD), torch.float16) for _ in range(4)]
    model.set_kv_cache(caches[:2], caches[2:])
    del caches
done = True
for thread in threads: thread.join()
print("fine")
"""


@BACKENDS
def test_a_graph_is_built_anew_while_steps_of_the_former_run(backend: str) -> None:
    script = ANEW.format(path=[path for path in sys.path if path], backend=backend)
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250)
    assert (child.returncode, child.stdout) == (0, "fine\n"), child.stderr


@BACKENDS
def test_lengths_that_do_not_add_up_are_refused_in_the_same_words(backend: str) -> None:
    model = model_torch(backend)
    for lengths in ([2], [2, 2], [5, 1], [0]):
        inputs = {**prefill_inputs(), "seq_len": torch.tensor(lengths, dtype=torch.int32)}
        with pytest.raises(EngineError, match="sequence lengths do not add up to the number of tokens"):
            execute(model, inputs)
    assert torch.isfinite(execute(model, prefill_inputs())).all()


@BACKENDS
def test_weights_given_one_by_one_are_checked_too(backend: str) -> None:
    model = ModelTorch("core_DecoderModel", backend=backend)
    model.set_param(PARAMETERS)
    given = weights(model.weight_names)
    model.declare_weight(model.weight_names, [weight.to("meta") for weight in given])
    name = model.weight_names[0]
    for value, words in (
        (given[0].T.contiguous().T, "not contiguous"),
        (None, "must be a torch.Tensor or a numpy array, not NoneType"),
        (given[0].to_sparse(), "sparse"),
        (given[0].double(), "float64"),
        (given[0].to("meta"), "on meta"),
    ):
        with pytest.raises(EngineError, match=f"weight '{name}'.*{words}"):
            model.store.set(name, value)


def test_weights_set_again_are_alike() -> None:
    model, inputs = model_torch("cpu"), prefill_inputs()
    expected = execute(model, inputs)
    given = weights(model.weight_names)
    model.set_weight([weight * 1 for weight in given])
    assert torch.equal(execute(model, inputs), expected)
    tied = [*given[:-1], given[0]]
    other = [weight[: len(weight) // 2].contiguous() if weight.dim() == 1 else weight for weight in given]
    for wrong in (tied, other):
        with pytest.raises(EngineError, match=r"build the graph again first|hidden"):
            model.set_weight(wrong)
        assert torch.equal(execute(model, inputs), expected)


def test_weights_are_shared_where_both_models_run() -> None:
    one, two = (ModelTorch("core_DecoderModel", backend=CpuBackend(num_threads=n)) for n in (1, 2))
    for model in (one, two):
        model.set_param(PARAMETERS)
    one.set_weight(weights(one.weight_names))
    with pytest.raises(EngineError, match="run on different threads or devices") as error:
        two.share_weight(one)
    assert "backend=other.backend" in str(error.value.hint)


CALLS: dict[str, Callable[[ModelTorch], Any]] = {
    "parameters None": lambda m: m.set_param(None),  # type: ignore[arg-type]
    "parameters bytes": lambda m: m.set_param(b"{}"),  # type: ignore[arg-type]
    "parameters with a tensor": lambda m: m.set_param({"normEps": torch.ones(1)}),
    "parameters not finite": lambda m: m.set_param({"normEps": float("nan")}),
    "weights None": lambda m: m.set_weight(None),  # type: ignore[arg-type]
    "weights a tensor": lambda m: m.set_weight(torch.ones(3)),
    "weights of numbers": lambda m: m.set_weight([1, 2]),  # type: ignore[list-item]
    "weights of float64": lambda m: m.set_weight([torch.ones(2, 2).double()]),
    "weights sparse": lambda m: m.set_weight([torch.ones(2, 2).to_sparse()]),
    "names None": lambda m: m.declare_weight(None, []),  # type: ignore[arg-type]
    "shares with None": lambda m: m.share_weight(None),  # type: ignore[arg-type]
    "caches None": lambda m: m.set_kv_cache(None, None),  # type: ignore[arg-type]
    "caches of None": lambda m: m.set_kv_cache([None] * 2, [None] * 2),  # type: ignore[list-item]
    "constants None": lambda m: m.set_constant(None),  # type: ignore[arg-type]
    "constants without names": lambda m: m.set_constant([torch.ones(1)]),  # type: ignore[arg-type]
    "inputs None": lambda m: m.execute(None),  # type: ignore[arg-type]
    "inputs by name": lambda m: m.execute(prefill_inputs()),
    "inputs of float64": lambda m: execute(m, {**prefill_inputs(), "cosine_table": torch.ones(8, HEAD).double()}),
    "outputs None": lambda m: m.execute_out([None] * len(m.input_names), None),  # type: ignore[arg-type]
    "step None": lambda m: execute(m, prefill_inputs(), None),  # type: ignore[arg-type]
    "step too deep": lambda m: execute(m, prefill_inputs(), "[" * 100_000),
    "threads of a given backend": lambda m: ModelTorch("core_DecoderModel", 2, backend=m.backend),
}


@BACKENDS
@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_argument_is_refused_as_such_and_nothing_is_lost(backend: str, call: str) -> None:
    model = model_torch(backend)
    expected = execute(model, prefill_inputs())
    with pytest.raises(EngineError):
        CALLS[call](model)
    assert torch.equal(execute(model, prefill_inputs()), expected)
