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


def safe_get_tokenizer_from_pretrained(
    model_path: str, trust_remote_code: bool = False, **kwargs: Any
) -> PreTrainedTokenizerBase:
    """Loads a tokenizer with transformers from a directory on this machine, if it is of parts that are known to end.

    Args:
        model_path: directory of the checkpoint.
        trust_remote_code: must be false: no code of a checkpoint is run.
        kwargs: further arguments of `AutoTokenizer.from_pretrained`, for example `padding_side`.

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
    if isinstance(checkpoint_at(Path(model_path)).tokenizer_parts().backend, GuardedTokenizer):
        raise TokenizerError(
            f"The tokenizer of {model_path} has parts that can need any amount of time or memory",
            hint="Drop get_tokenizer from the router: the project's own tokenizer runs it in a process with limits.",
        )
    from transformers import AutoTokenizer  # imported here: listing families does not need it

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        model_path, local_files_only=True, trust_remote_code=False, **kwargs
    )
    return tokenizer
