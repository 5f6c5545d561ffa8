# SPDX-License-Identifier: Apache-2.0
"""Functions by which routers written for ATB-Models load what Hugging Face reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.checkpoint.opening import checkpoint_at
from atb_core.errors import ConfigError, TokenizerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["safe_get_tokenizer_from_pretrained"]

_SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
# Arguments of `AutoTokenizer.from_pretrained` that say how files are found and read.
_OF_AUTO_TOKENIZER = ("use_fast", "local_files_only", "revision", "token", "cache_dir", "force_download")


def safe_get_tokenizer_from_pretrained(
    model_path: str, trust_remote_code: bool = False, **kwargs: Any
) -> PreTrainedTokenizerBase:
    """Returns a transformers tokenizer of a checkpoint's files, if it is of parts that are known to end.

    transformers itself reads none of the files: this project reads them, within its limits.

    Args:
        model_path: directory of the checkpoint.
        trust_remote_code: must be false: no code of a checkpoint is run.
        kwargs: arguments of `PreTrainedTokenizerFast`, for example `padding_side`.

    Raises:
        ConfigError: code of the checkpoint would have to run.
        TokenizerError: there is no tokenizer, it is damaged, or it may need any amount of time or memory.
        ImportError: transformers is not installed.
    """
    if trust_remote_code:
        raise ConfigError(
            "trust_remote_code=True: no code of a checkpoint is run",
            hint="Put the tokenizer's class into the family's package and return it from get_tokenizer.",
        )
    parts = checkpoint_at(Path(model_path)).tokenizer_parts()
    if isinstance(parts.backend, GuardedTokenizer):
        raise TokenizerError(
            f"The tokenizer of {model_path} has parts that can need any amount of time or memory",
            hint="Drop get_tokenizer from the router: the project's own tokenizer runs it in a process with limits.",
        )
    from transformers import PreTrainedTokenizerFast  # imported here: listing families does not need it

    templates = parts.chat_templates
    named = {name: text for name, text in parts.special_tokens.items() if name in _SPECIAL_TOKENS}
    extra = {name: text for name, text in parts.special_tokens.items() if name not in _SPECIAL_TOKENS}
    options: dict[str, Any] = {
        **named,
        "extra_special_tokens": extra,
        "chat_template": templates if len(templates) > 1 else templates.get("default"),
        "name_or_path": model_path,
        **{name: value for name, value in kwargs.items() if name not in _OF_AUTO_TOKENIZER},
    }
    return PreTrainedTokenizerFast(tokenizer_object=parts.backend, **options)
