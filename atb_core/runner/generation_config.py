# SPDX-License-Identifier: Apache-2.0
"""Default sampling parameters from a checkpoint's `generation_config.json`.

Every field of Hugging Face's `GenerationConfig` is in one of four classes: it gives a default, it is refused unless it
has the value that changes nothing, it has no effect on the tokens chosen here, or it is unknown and warned about.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atb_core.errors import ConfigError, RequestError
from atb_core.files import read_json
from atb_core.runner.sampling_params import DEFAULT_MAX_TOKENS, SamplingParams

_log = logging.getLogger(__name__)

FILE_NAME = "generation_config.json"
_OFF_HINT = "Leave the file's defaults out with generation_config='none' (--generation-config none)."

# Fields that give a default, and the parameter that each one sets.
_ALWAYS = {
    "repetition_penalty": "repetition_penalty", "max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens",
    "stop_strings": "stop",
}  # fmt: skip
_IF_SAMPLING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}

# Processing that is not implemented, with the values that mean "off". `None` always does.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (1,)),
    **dict.fromkeys(("guidance_scale", "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "penalty_alpha"), (0,)),
    **dict.fromkeys(("bad_words_ids", "force_words_ids", "constraints", "forced_decoder_ids"), ([],)),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens"), ([],)),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty"), ()),
    **dict.fromkeys(("dola_layers", "watermarking_config", "max_time"), ()),
    "sequence_bias": ({}, []),
    "token_healing": (False,),
}
# The same for filters that Hugging Face applies only when it samples.
_UNSUPPORTED_IF_SAMPLING: dict[str, tuple[Any, ...]] = {
    "typical_p": (1,), "epsilon_cutoff": (0,), "eta_cutoff": (0,), "top_h": (),
}  # fmt: skip

# Read elsewhere (end tokens), of use to beam search or to training alone, or about speed, caches and return values.
# `max_length` counts the prompt; the context's length bounds the same sum.
_WITHOUT_EFFECT = {
    "do_sample", "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "max_length",
    "length_penalty", "early_stopping", "diversity_penalty", "low_memory", "renormalize_logits",
    "remove_invalid_values", "use_cache", "cache_implementation", "cache_config", "return_legacy_cache",
    "prefill_chunk_size", "compile_config", "disable_compile", "is_assistant", "num_assistant_tokens",
    "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_early_exit", "assistant_lookbehind",
    "assistant_ensemble_weight", "speculation_type", "use_mtp", "max_cache_len", "target_lookbehind",
    "prompt_lookup_num_tokens", "max_matching_ngram_size", "continuous_batching_config", "output_attentions",
    "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate", "generation_kwargs",
    "transformers_version"
}  # fmt: skip
# Those that a checkpoint without the file has in its config.json.
_IN_CONFIG = {"do_sample", *_ALWAYS, *_IF_SAMPLING, *_UNSUPPORTED, *_UNSUPPORTED_IF_SAMPLING}


def choose_generation_config(
    choice: str | Path, own: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Returns the generation configuration to take defaults from, and its name in messages.

    Args:
        choice: `"auto"` (`own`, the checkpoint's), `"none"`, or a file or a directory with a `generation_config.json`.
        own: Generation configuration of the checkpoint; where it has none, the fields of `config` count, as in Hugging
            Face.
        config: Contents of the checkpoint's `config.json`.

    Raises:
        ConfigError: There is no such file, or it does not hold a JSON object.
    """
    if choice == "auto":
        if own:
            return dict(own), f"The model's {FILE_NAME}"
        return {name: value for name, value in config.items() if name in _IN_CONFIG}, "The model's config.json"
    if choice == "none":
        return {}, FILE_NAME
    path = Path(choice)
    file = path / FILE_NAME if path.is_dir() else path
    values = read_json(file, ConfigError)
    if values is None:
        raise ConfigError(f"There is no {file}", hint="generation_config is 'auto', 'none', or a file or directory.")
    return values, str(file)


def default_values(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Translates a generation configuration into arguments of `SamplingParams`.

    With `do_sample` false or absent the configuration stands for greedy decoding, as in Hugging Face's `generate`: its
    temperature and filters are checked but not taken over.

    Args:
        config: Contents of a `generation_config.json`.
        name: Name of the configuration in messages.

    Returns:
        Arguments for what the file says; what it leaves open is as in `SamplingParams`, and when sampling as in vLLM:
        temperature 1.0 and no filters.

    Raises:
        ConfigError: A field has a bad value, or asks for something that is not implemented; the message names it.
    """
    sampling = config.get("do_sample")
    if sampling is not None and not isinstance(sampling, bool):
        raise ConfigError(f"{name}: do_sample must be true or false, not {sampling!r}", hint=_OFF_HINT)
    ends = config.get("eos_token_id")
    each = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if any(type(end) is not int or end < -1 for end in each):  # -1 stands for none
        raise ConfigError(f"{name}: eos_token_id must be a token id or a list of them, not {ends!r}", hint=_OFF_HINT)
    _refuse_unsupported(config, name, {**_UNSUPPORTED, **(_UNSUPPORTED_IF_SAMPLING if sampling else {})})
    _warn_of_unknown(config, name)
    checked = {}
    for key, parameter in {**_ALWAYS, **_IF_SAMPLING}.items():
        if config.get(key) is not None:
            checked[parameter] = config[key]
            # Each by itself, so that the message has the file's name for it.
            _construct({"max_tokens": None, parameter: config[key]}, f"{key}: ", name)
    values = {"temperature": 1.0} if sampling else {}
    values |= {name: value for name, value in checked.items() if sampling or name not in _IF_SAMPLING.values()}
    if "min_tokens" in values:
        # The default limit is core's own; a larger min_tokens in the file raises it.
        values.setdefault("max_tokens", max(values["min_tokens"], DEFAULT_MAX_TOKENS))
    _construct(values, "", name)
    return values


def _construct(values: Mapping[str, Any], where: str, name: str) -> None:
    try:
        SamplingParams(**values)
    except RequestError as error:
        raise ConfigError(f"{name}: {where}{error.message}", hint=_OFF_HINT) from None


def _refuse_unsupported(config: Mapping[str, Any], name: str, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
    for key, off in unsupported.items():
        value = config.get(key)
        if value is not None and value not in off:
            raise ConfigError(f"{name} asks for {key}={value!r}, which is not implemented", hint=_OFF_HINT)


def _warn_of_unknown(config: Mapping[str, Any], name: str) -> None:
    fields = {*_ALWAYS, *_IF_SAMPLING, *_UNSUPPORTED, *_UNSUPPORTED_IF_SAMPLING, *_WITHOUT_EFFECT}
    unknown = sorted(key for key in config if key not in fields and not key.startswith("_"))
    if unknown:
        _log.warning("%s has fields that are unknown and ignored: %s", name, ", ".join(unknown))
