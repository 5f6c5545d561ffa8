# SPDX-License-Identifier: Apache-2.0
"""A run of the CPU engine pauses between nodes, lets others run, and gives what it gives at once."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from engine.networks import VOCAB, tiny_network, tiny_weights

from atb_core.engine.base import SlicedRun
from atb_core.engine.cpu import CpuBackend, CpuEngine
from atb_core.engine.reference import ReferenceBackend
from atb_core.errors import EngineError


def engine_of_nodes(shapes: bool = True) -> CpuEngine:
    """Returns an engine in which threads meet after each node, however small."""
    engine = CpuBackend(num_threads=2, small_work=0).build(tiny_network(shapes=shapes))
    engine.set_weights(tiny_weights())
    return engine


def finish(run: SlicedRun, seconds: float = 0.0) -> tuple[int, dict[str, Any]]:
    """Returns the number of slices that did not end the run, and its outputs."""
    paused = 0
    while (outputs := run.advance(seconds)) is None:
        paused += 1
    return paused, outputs


@pytest.mark.parametrize("shapes", [True, False], ids=["declared", "open"])
def test_a_run_in_slices_gives_what_it_gives_at_once(shapes: bool) -> None:
    engine, ids, others = engine_of_nodes(shapes=shapes), torch.tensor([3, 1, 2]), torch.tensor([5, 5, 4])
    at_once, other = (engine.forward({"ids": each})["logits"].clone() for each in (ids, others))
    run = engine.start({"ids": ids})
    slices = 0
    while (outputs := run.advance(0.0)) is None:
        slices += 1
        assert torch.equal(engine.forward({"ids": others})["logits"], other)
    assert slices >= 1
    assert torch.equal(outputs["logits"], at_once)


def test_outputs_are_filled_when_given_and_of_the_kind_of_the_inputs() -> None:
    engine, given = engine_of_nodes(), np.empty((3, VOCAB), np.float32)
    _, outputs = finish(engine.start({"ids": np.array([3, 1, 2])}, {"logits": given}))
    assert outputs["logits"] is given
    _, made = finish(engine.start({"ids": np.array([3, 1, 2])}))
    assert np.array_equal(made["logits"], given)


@pytest.mark.parametrize("seconds", [3600.0, float("inf"), float("nan")])
def test_a_slice_that_is_long_enough_ends_the_run(seconds: float) -> None:
    paused, _ = finish(engine_of_nodes().start({"ids": torch.tensor([1])}), seconds)
    assert paused == 0


def test_a_negative_time_is_none() -> None:
    assert engine_of_nodes().start({"ids": torch.tensor([1])}).advance(-1.0) is None


def test_inputs_live_as_long_as_their_run() -> None:
    engine, ids = engine_of_nodes(), np.array([3, 1, 2])
    expected, kept = engine.forward({"ids": ids})["logits"].copy(), weakref.ref(ids)
    run = engine.start({"ids": ids})
    del ids
    gc.collect()
    assert kept() is not None
    _, outputs = finish(run)
    assert np.array_equal(outputs["logits"], expected)
    del run, outputs
    gc.collect()
    assert kept() is None


def test_a_run_outlives_the_engine() -> None:
    engine = engine_of_nodes()
    expected = engine.forward({"ids": np.array([1])})["logits"].copy()
    run = engine.start({"ids": np.array([1])})
    del engine
    gc.collect()
    assert np.array_equal(finish(run)[1]["logits"], expected)


def test_what_is_wrong_is_named() -> None:
    engine = engine_of_nodes()
    with pytest.raises(EngineError, match="input"):
        engine.start({})
    with pytest.raises(EngineError, match="out of range"):
        finish(engine.start({"ids": np.array([VOCAB])}))
    run = engine.start({"ids": np.array([1])})
    finish(run)
    with pytest.raises(EngineError, match="this run has ended"):
        run.advance(0.0)
    run = engine.start({"ids": np.array([1])})
    engine.set_weights(tiny_weights())
    with pytest.raises(EngineError, match="weights were set while a run was paused"):
        run.advance(0.0)


def test_an_engine_that_cannot_pause_says_so() -> None:
    engine = ReferenceBackend().build(tiny_network())
    assert not engine.slices_runs
    with pytest.raises(EngineError, match="ReferenceEngine has no runs in slices"):
        engine.start({"ids": np.array([1])})


def test_recorded_slices_are_one_run() -> None:
    engine = engine_of_nodes()
    engine.set_recording(True)
    finish(engine.start({"ids": np.array([1])}))
    (record,) = engine.take_runs()
    first = record.threads[0]
    assert all(end >= begin > 0 for begin, end in zip(first[::2], first[1::2], strict=True))
