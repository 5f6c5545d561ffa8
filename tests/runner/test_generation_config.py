# SPDX-License-Identifier: Apache-2.0
"""Tests that a checkpoint's generation_config.json gives the defaults, or is refused by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from atb_core.errors import ConfigError
from atb_core.models.base.config import BaseConfig
from atb_core.runner.generation_config import _IN_CONFIG, choose_generation_config, default_values
from atb_core.runner.sampling_params import DEFAULT_MAX_TOKENS, SamplingParams

QWEN = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "repetition_penalty": 1.05,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.45.0",
}


def defaults(config: dict[str, Any]) -> SamplingParams:
    return SamplingParams(**default_values(config, "file"))


def test_a_real_file(caplog: pytest.LogCaptureFixture) -> None:
    assert defaults(QWEN) == SamplingParams(temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05)
    assert caplog.records == []


def test_without_a_file_decoding_is_greedy() -> None:
    assert defaults({}) == SamplingParams()
    assert SamplingParams().greedy


def test_every_default() -> None:
    config = {
        "do_sample": True, "temperature": 0.6, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.1,
        "max_new_tokens": 99, "min_new_tokens": 2, "stop_strings": ["END"],
    }  # fmt: skip
    assert defaults(config) == SamplingParams(
        temperature=0.6, top_k=5, top_p=0.5, min_p=0.1, repetition_penalty=1.1, max_tokens=99, min_tokens=2, stop="END"
    )


@pytest.mark.parametrize("do_sample", [{"do_sample": False}, {}])
def test_a_file_that_does_not_sample_is_greedy_whatever_its_temperature(do_sample: dict[str, bool]) -> None:
    params = defaults({**do_sample, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1})
    assert params.greedy
    assert params == SamplingParams(repetition_penalty=1.1)


def test_a_file_that_samples_without_a_temperature_samples_at_one() -> None:
    assert defaults({"do_sample": True}).effective_temperature == 1.0


def test_a_least_length_beyond_the_default_limit_raises_it() -> None:
    assert defaults({"min_new_tokens": DEFAULT_MAX_TOKENS + 9}).max_tokens == DEFAULT_MAX_TOKENS + 9


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"temperature": "hot"}, "file: temperature: temperature must be a number, not 'hot'"),
        ({"do_sample": True, "top_p": 7}, r"file: top_p: top_p must be in \(0, 1\]"),
        ({"do_sample": "yes"}, "file: do_sample must be true or false"),
        ({"max_new_tokens": 1.5}, "file: max_new_tokens: max_tokens must be an integer"),
        ({"eos_token_id": "</s>"}, "file: eos_token_id must be a token id"),
        ({"eos_token_id": [1, None]}, "file: eos_token_id must be a token id"),
        ({"eos_token_id": -2}, "file: eos_token_id must be a token id"),
        ({"stop_strings": [""]}, "file: stop_strings: A stop string is empty"),
        ({"max_new_tokens": 4, "min_new_tokens": 5}, "file: min_tokens=5 is more than max_tokens=4"),
        ({"num_beams": 4}, "file asks for num_beams=4, which is not implemented"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "asks for penalty_alpha=0.6"),
        ({"no_repeat_ngram_size": 3}, "asks for no_repeat_ngram_size=3"),
        ({"suppress_tokens": [1, 2]}, r"asks for suppress_tokens=\[1, 2\]"),
        ({"forced_bos_token_id": 0}, "asks for forced_bos_token_id=0"),
        ({"do_sample": True, "typical_p": 0.9}, "asks for typical_p=0.9"),
    ],
)
def test_what_is_wrong_or_not_implemented_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        default_values(config, "file")


def test_the_refusal_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match="--generation-config none"):
        default_values({"num_beams": 4}, "file")


def test_values_that_change_nothing_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    config = {
        "num_beams": 1, "typical_p": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None, "suppress_tokens": [],
        "penalty_alpha": 0.0, "num_return_sequences": 1, "encoder_repetition_penalty": 1.0,
    }  # fmt: skip
    assert defaults(config) == SamplingParams()
    # A filter that Hugging Face applies to samples alone.
    assert defaults({"typical_p": 0.9}) == SamplingParams()
    assert caplog.records == []


def test_every_field_of_hugging_faces_generation_config_is_known(caplog: pytest.LogCaptureFixture) -> None:
    from transformers import GenerationConfig

    fields = {**dict.fromkeys(GenerationConfig().to_dict()), "eos_token_id": -1}
    assert len(fields) > 40
    assert defaults(fields) == SamplingParams()
    assert caplog.records == []


def test_an_unknown_field_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert defaults({"chat_format": "chatml"}) == SamplingParams()
    assert "unknown and ignored: chat_format" in caplog.text


def test_where_the_configuration_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"top_k": 3}))
    own = {"top_k": 9}
    assert choose_generation_config("auto", own, {"top_k": 4})[0] == own
    assert choose_generation_config("none", own, {"top_k": 4})[0] == {}
    assert choose_generation_config(tmp_path, own, {}) == ({"top_k": 3}, str(file))
    assert choose_generation_config(str(file), own, {})[0] == {"top_k": 3}
    with pytest.raises(ConfigError, match="There is no"):
        choose_generation_config(tmp_path / "absent", own, {})


def test_without_a_file_the_fields_of_config_json_count_as_in_hugging_face() -> None:
    config = {"hidden_size": 64, "do_sample": True, "top_k": 4, "eos_token_id": 2, "max_length": 20}
    found, name = choose_generation_config("auto", {}, config)
    assert found == {"do_sample": True, "top_k": 4}
    assert name == "The model's config.json"
    assert BaseConfig.unread_fields(dict.fromkeys([*_IN_CONFIG, "low_memory", "renormalize_logits"], 3)) == {}
    found, name = choose_generation_config("auto", {}, {"no_repeat_ngram_size": 3})
    with pytest.raises(ConfigError, match=r"The model's config\.json asks for no_repeat_ngram_size=3"):
        default_values(found, name)
