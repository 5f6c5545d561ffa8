# SPDX-License-Identifier: Apache-2.0
"""Values are checked where they are given, and the message names them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from atb_core.errors import RequestError
from atb_core.runner.sampling_params import SamplingParams


def test_the_default_is_greedy() -> None:
    assert SamplingParams().greedy
    assert SamplingParams().effective_temperature == 0.0


@pytest.mark.parametrize("options", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"seed": 0}])
def test_asking_for_sampling_without_a_temperature_samples_at_one(options: dict[str, Any]) -> None:
    assert SamplingParams(**options).effective_temperature == 1.0
    assert SamplingParams(temperature=0, **options).greedy


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-7])
def test_temperatures_next_to_zero_are_greedy(temperature: float) -> None:
    assert SamplingParams(temperature=temperature).greedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("temperature", "0.5"),
        ("temperature", True),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", None),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1),
        ("seed", 1.0),
        ("seed", "x"),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", 2.5),
        ("logprobs", -1),
        ("logprobs", True),
        ("ignore_eos", "yes"),
        ("stop", 5),
        ("stop", [1]),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", ["a"]),
        ("stop_token_ids", 7),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=name):
        SamplingParams(**{name: value})


def test_an_empty_stop_string_would_end_everything() -> None:
    with pytest.raises(RequestError, match="stop string is empty"):
        SamplingParams(stop=["a", ""])


def test_stop_strings_are_bounded_in_number_and_length() -> None:
    with pytest.raises(RequestError, match="65 stop strings"):
        SamplingParams(stop=["x"] * 65)
    with pytest.raises(RequestError, match="1025 characters"):
        SamplingParams(stop="x" * 1025)


def test_values_are_normalised() -> None:
    params = SamplingParams(stop="END", stop_token_ids=[np.int64(3)], top_k=np.int32(4), temperature=1)
    assert params.stop == ("END",)
    assert params.stop_token_ids == (3,)
    assert params.top_k == 4
    assert params.temperature == 1.0
    assert SamplingParams(stop=None).stop == ()


def test_it_cannot_be_changed_and_copies_are_checked() -> None:
    params = SamplingParams(top_k=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 6  # type: ignore[misc]
    with pytest.raises(RequestError):
        dataclasses.replace(params, top_p=7)
    assert hash(params) == hash(dataclasses.replace(params))


def test_a_checkpoints_recommendation() -> None:
    file = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.05,
        "max_new_tokens": 99,
    }
    params = SamplingParams.from_generation_config(file, top_k=None, top_p=0.5)
    assert (params.temperature, params.top_k, params.top_p) == (0.7, 20, 0.5)
    assert (params.repetition_penalty, params.max_tokens) == (1.05, 99)


def test_a_checkpoint_that_does_not_recommend_sampling() -> None:
    params = SamplingParams.from_generation_config({"temperature": 0.6, "repetition_penalty": 1.1})
    assert params.greedy
    assert params.repetition_penalty == 1.1
    assert SamplingParams.from_generation_config({"do_sample": True}).effective_temperature == 1.0
