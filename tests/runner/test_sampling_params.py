# SPDX-License-Identifier: Apache-2.0
"""Values are checked where they are given, and the message names them."""

from __future__ import annotations

import dataclasses
import itertools
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temprature", "no parameter 'temprature'. Did you mean temperature?"),
        ("max_new_tokens", "It is called max_tokens."),
        ("colour", r"help\(SamplingParams\) lists all."),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(**{name: 1})
    with pytest.raises(RequestError, match=message):
        dataclasses.replace(SamplingParams(), **{name: 1})


BROKEN_FLOATS = [True, np.True_, "1", b"1", None, [], 10**400, 10**5000, float("nan"), float("-inf"), 1j, object()]
BROKEN_INTEGERS = [True, np.False_, 1.0, "1", b"1", [1], -(10**5000), float("nan"), object()]


@pytest.mark.parametrize("value", BROKEN_FLOATS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be") as raised:
        SamplingParams(**{name: value})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", BROKEN_INTEGERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ["n", "top_k", "seed", "max_tokens", "min_tokens", "logprobs", "prompt_logprobs"])
def test_what_is_no_integer_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be") as raised:
        SamplingParams(**{name: value})
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stop", itertools.repeat("x"), "stop has more than 64"),
        ("stop", {"a": 1, 2: 3}, "stop must be a string or a list"),
        ("stop", b"bytes", "stop must be a string or a list"),
        ("stop", np.array(1), "stop must be a string or a list"),
        ("stop_token_ids", np.array(1), "stop_token_ids must be a list"),
        ("stop_token_ids", range(10**15), "stop_token_ids has more than"),
        ("stop_token_ids", [1, True], "stop_token_ids must be a list"),
        ("stop_token_ids", ["x"] * 10**6, "stop_token_ids must be a list"),
        ("logit_bias", {True: 1.0}, "logit_bias has the key True"),
        ("logit_bias", {1: float("nan")}, "logit_bias.1. must be"),
        ("logit_bias", {"x" * 10**6: 1.0}, "logit_bias has the key 'xxx"),
        ("logit_bias", dict.fromkeys(range((1 << 20) + 1), 1.0), "logit_bias has more than"),
        ("seed", 2**64, "seed must be at most"),
        ("seed", -2, "seed must be at least -1"),
    ],
)
def test_what_is_too_long_or_out_of_range_is_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        SamplingParams(**{name: value})
    assert len(str(raised.value)) < 300


def test_a_seed_of_minus_one_is_random_sampling_as_in_vllm() -> None:
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(seed=-1).effective_temperature == 1.0
    assert SamplingParams(seed=-1, temperature=0).greedy
    assert SamplingParams(seed=0).seed == 0


def test_an_empty_stop_string_would_end_everything() -> None:
    with pytest.raises(RequestError, match="stop string is empty"):
        SamplingParams(stop=["a", ""])


def test_stop_strings_are_bounded_in_number_and_length() -> None:
    with pytest.raises(RequestError, match="stop has more than 64 strings"):
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
    with pytest.raises(RequestError, match="min_tokens=a value of type int is more than max_tokens=512"):
        SamplingParams(min_tokens=10**5000)
    with pytest.raises(RequestError, match="n=2: greedy decoding gives the same completion"):
        SamplingParams(n=2, temperature=0)


def test_a_bias_is_copied() -> None:
    bias = {3: 1}
    params = SamplingParams(logit_bias=bias)
    bias[4] = 2
    assert params.logit_bias == {3: 1.0}
    assert SamplingParams(logit_bias={}).logit_bias is None
