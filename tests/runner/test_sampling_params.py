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


@pytest.mark.parametrize("options", [{"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}, {"seed": 0}, {"n": 2}])
def test_asking_for_sampling_without_a_temperature_samples_at_one(options: dict[str, Any]) -> None:
    assert SamplingParams(**options).effective_temperature == 1.0
    if "n" not in options:
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
        ("n", 0),
        ("n", 129),
        ("n", 1.5),
        ("presence_penalty", 2.1),
        ("presence_penalty", "much"),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", float("nan")),
        ("min_tokens", -1),
        ("min_tokens", 1.0),
        ("prompt_logprobs", -1),
        ("skip_special_tokens", 1),
        ("logit_bias", [1]),
        ("logit_bias", {"1": 2.0}),
        ("logit_bias", {-1: 2.0}),
        ("logit_bias", {1: 100.5}),
        ("logit_bias", {1: None}),
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


def test_values_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RequestError, match="min_tokens=5 is more than max_tokens=4"):
        SamplingParams(min_tokens=5, max_tokens=4)
    with pytest.raises(RequestError, match="n=2: greedy decoding gives the same completion"):
        SamplingParams(n=2, temperature=0)


def test_a_bias_is_copied() -> None:
    bias = {3: 1}
    params = SamplingParams(logit_bias=bias)
    bias[4] = 2
    assert params.logit_bias == {3: 1.0}
    assert SamplingParams(logit_bias={}).logit_bias is None
