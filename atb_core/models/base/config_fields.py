# SPDX-License-Identifier: Apache-2.0
"""The fields of a `config.json` that no class reads: those that change nothing, and the refusal of all others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from atb_core.errors import ConfigError, shown

#: Fields without a meaning for inference, by the reason.
MEANINGLESS: dict[str, str] = {
    "bookkeeping: what wrote the file, and which classes of other libraries read it": """
        architectures auto_map custom_pipelines finetuning_task id2label label2id license model_type name_or_path
        num_labels parent_library problem_type task_specific_params transformers_version unsloth_fixed unsloth_version
        _commit_hash _name_or_path""",
    "training: initial values, losses, and dropout (below)": """
        aux_loss_alpha gradient_checkpointing initializer_factor initializer_range neftune_noise_alpha
        output_router_logits pretraining_tp router_aux_loss_coef router_jitter_noise router_z_loss_coef seq_aux""",
    "the tokenizer, whose files have them": """
        cls_token_id decoder_start_token_id mask_token_id model_max_length sep_token_id tokenizer_class unk_token_id""",
    "generation, whose settings the runner reads": """
        bad_words_ids begin_suppress_tokens constraints diversity_penalty do_sample dola_layers early_stopping
        encoder_no_repeat_ngram_size encoder_repetition_penalty epsilon_cutoff eta_cutoff
        exponential_decay_length_penalty force_words_ids forced_bos_token_id forced_decoder_ids forced_eos_token_id
        guidance_scale length_penalty low_memory max_length max_new_tokens max_time min_length min_new_tokens min_p
        no_repeat_ngram_size num_beam_groups num_beams num_return_sequences penalty_alpha prefix remove_invalid_values
        renormalize_logits repetition_penalty sequence_bias stop_strings suppress_tokens temperature token_healing top_h
        top_k top_p typical_p watermarking_config""",
    "how another library computes and returns the same values": """
        _attn_implementation _attn_implementation_autoset _experts_implementation attn_implementation
        cache_implementation chunk_size_feed_forward is_decoder is_llama_config num_logits_to_keep output_attentions
        output_hidden_states return_dict tf_legacy_loss torchscript transformers.js_config use_bfloat16 use_cache
        use_flash_attn use_flash_attention use_return_dict _flash_attn_2_enabled tensor_data_layout""",
    "embeddings, whose reader is `ModelRunner.embed`": "is_matryoshka matryoshka_dimensions",
    "modifiers of sliding_window, which is judged itself": "max_window_layers use_sliding_window",
}
# They name the layers that have the window, where there is one and `layer_types` does not say it.
_PATTERNS = {"sliding_window_pattern", "_sliding_window_pattern"}
_MEANINGLESS = frozenset(" ".join(MEANINGLESS.values()).split())
# Probabilities of dropout. `token_dropout` also scales embeddings where nothing is dropped.
_DROPOUT = re.compile(r"(?!token_dropout).*(dropout|pdrop|layerdrop)(_prob|_rate)?|drop_path_rate")


def _is(number: int) -> Callable[[Any, Any], bool]:
    return lambda value, config: type(value) in (int, float) and value == number


_one, _zero = _is(1), _is(0)


def _scale_of_heads(value: Any, config: Any) -> bool:
    return type(value) in (int, float) and abs(value - (config.head_dim or 0) ** -0.5) < 1e-6


def _beyond_context(value: Any, config: Any) -> bool:
    return type(value) is int and (value <= 0 or value >= config.context_length)


# Fields that decoders have in common where they are true, so that false is not "off".
_TRUE = ("causal", "is_causal", "rmsnorm", "scale_attn_weights", "use_rms_norm", "use_rmsnorm", "use_rope")

#: Values that leave a field without effect, where they are not `None`, `False` or empty.
_NEUTRAL: dict[str, Callable[[Any, Any], bool]] = {
    **dict.fromkeys(
        (
            "embedding_multiplier", "embedding_scale", "logit_scale", "logits_scaling", "lm_head_multiplier",
            "partial_rotary_factor", "residual_multiplier", "residual_scale", "rope_ratio", "rotary_pct", "scale_emb",
        ),
        _one,
    ),
    **dict.fromkeys(
        (
            "attn_logit_softcapping", "final_logit_softcapping", "first_k_dense_replace", "logit_softcapping",
            "n_shared_experts", "num_experts", "num_local_experts", "num_nextn_predict_layers", "n_routed_experts",
        ),
        _zero,
    ),
    **dict.fromkeys(("attention_multiplier", "attention_scale"), _scale_of_heads),
    "query_pre_attn_scalar": lambda value, config: value == config.head_dim,
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), _beyond_context),
    "layer_types": lambda value, config: isinstance(value, list) and all(each == "full_attention" for each in value),
    "no_rope_layers": lambda value, config: isinstance(value, list) and all(_one(each, config) for each in value),
    "position_embedding_type": lambda value, config: value in ("rope", "rotary"),
    **dict.fromkeys(_TRUE, lambda value, config: value is True),
}  # fmt: skip


def unread_fields(config: Any, values: Mapping[str, Any], numbers: bool = True) -> dict[str, Any]:
    """Returns those of `values`, fields of a `config.json`, that change the model and that `config` does not have.

    Args:
        config: the `BaseConfig` made of the fields.
        values: the fields under the names of the configuration's class.
        numbers: leaves out numbers that are known to have no effect, such as a multiplier of 1.
    """
    without = _MEANINGLESS.union(field.name for field in dataclasses.fields(config))
    if values.get("use_sliding_window") is False:
        without |= {"sliding_window"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if values.get("layer_types") or not window or _beyond_context(window, config):
        without |= _PATTERNS
    unread = {}
    for name, value in values.items():
        off = value is None or value in ("", [], {}) or (value is False and name not in _TRUE)
        if off or name in without or _DROPOUT.fullmatch(name):
            continue
        neutral = _NEUTRAL.get(name)
        judged = neutral is not None and (numbers or type(value) not in (int, float))
        if not (judged and neutral and neutral(value, config)):
            unread[name] = value
    return unread


def refuse_unread(config: Any, values: Mapping[str, Any]) -> None:
    """Raises ConfigError with every field of `values` that changes the model and that `config` does not have."""
    unread = unread_fields(config, values)
    if unread:
        fields = ", ".join(f"{name[:60]} = {shown(value)}" for name, value in list(unread.items())[:8])
        more = f" and {len(unread) - 8} more" if len(unread) > 8 else ""
        cls = type(config)
        raise ConfigError(
            f"the family of {shown(config.model_type)} does not implement {fields}{more}; "
            "without it the model would compute something else",
            hint=f"Look for a newer version of the family's package. Its author declares the field in {cls.__name__} "
            f"({cls.__module__}) and implements it. If it is without meaning, remove it from config.json.",
        )
