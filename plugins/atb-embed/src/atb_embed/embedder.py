# SPDX-License-Identifier: Apache-2.0
"""Embeds prompts: hidden states of whole prompts, pooled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from atb_core.errors import AtbError, ConfigError, EngineError, RequestError, error_text
from atb_core.features.step import KVCache, Step
from atb_core.files import read_json
from atb_core.runner.outputs import Pooling
from atb_core.runner.sampler import as_float32

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.runner.kv_cache import PagedCache

# Keys of sentence-transformers, which are true for what a model was trained with.
_MODES: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "last", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
}  # fmt: skip


class Embedder:
    """Embeds prompts in one way.

    Args:
        model: The model, which has to give hidden states.
        path: Directory of its checkpoint.
        config: The checkpoint's config.json.
        pooling, normalize, dimensions: As for `ModelRunner.embed`.

    Raises:
        RequestError: There is no such way, or the model gives no hidden states.
    """

    def __init__(
        self,
        model: CausalLM,
        path: Path,
        config: Mapping[str, Any],
        pooling: Pooling | None,
        normalize: bool,
        dimensions: int | None,
    ) -> None:
        self._model, self._normalize, self._dimensions = model, normalize, dimensions
        self._pooling = pooling or pooling_of(path)
        check_pooling(self._pooling, model)
        check_dimensions(dimensions, model.config.hidden_size, config)

    def embed(
        self, prompts: Sequence[list[int]], cache: PagedCache, lock: AbstractContextManager[Any], max_tokens: int
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Yields a vector for each prompt, see `embed_all`."""
        for vector in embed_all(self._model, lock, cache, prompts, self._pooling, max_tokens):
            yield cut(vector, self._dimensions, self._normalize)


def pooling_of(path: Path) -> Pooling:
    """Returns the pooling that a checkpoint says in the files of sentence-transformers; `"last"` without these.

    Raises:
        RequestError: It says another one, or its file is missing.
        ConfigError: The file cannot be read.
    """
    config = read_json(path / "1_Pooling" / "config.json", ConfigError)
    hint = f"Give pooling: {', '.join(get_args(Pooling))}."
    if config is None:
        if (path / "modules.json").exists():
            raise RequestError(f"{path} has a modules.json and no 1_Pooling/config.json, which says how to pool", hint)
        return "last"
    modes = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise RequestError(f"The pooling of {path} is not supported: {', '.join(modes) or 'none'}", hint)
    return _MODES[modes[0]]


def check_dimensions(dimensions: object, size: int, config: Mapping[str, Any]) -> None:
    """Raises RequestError unless a checkpoint's configuration says that vectors may be cut to `dimensions`."""
    if dimensions is None:
        return
    if type(dimensions) is not int or not 0 < dimensions <= size:
        raise RequestError(f"dimensions must be an integer from 1 to {size}, not {dimensions!r:.100}")
    known = config.get("matryoshka_dimensions")
    if isinstance(known, list):
        if dimensions not in known:
            raise RequestError(f"dimensions is {dimensions}; the checkpoint knows {', '.join(map(str, known)):.200}")
    elif config.get("is_matryoshka") is not True:
        raise RequestError(
            "The checkpoint does not say that its vectors may be cut to dimensions",
            hint="Leave dimensions out; is_matryoshka in its config.json would say so.",
        )


def check_pooling(pooling: object, model: CausalLM) -> None:
    """Raises RequestError if there is no such pooling, or the model gives no hidden states."""
    if pooling not in get_args(Pooling):
        raise RequestError(f"pooling must be one of {', '.join(get_args(Pooling))}, not {pooling!r:.100}")
    variants, hint = model.variants, "A family's forward returns them as model_out if its hidden_states is true."
    try:
        network = variants.get("prefill", [model.hidden_states]).engine.network
    # A `forward` with a fixed list of arguments ends with a TypeError.
    except (AtbError, TypeError) as error:
        raise RequestError(f"This model gives no hidden states: {error_text(error)}", hint=hint) from None
    shape = network.outputs[0].shape
    is_shorter = len(network.nodes) < len(variants.get("prefill").engine.network.nodes)
    if not (is_shorter and shape is not None and shape[-1] == model.config.hidden_size):
        raise RequestError("This model gives no hidden states: its forward does not know the argument", hint=hint)


def batches(prompts: Sequence[list[int]], max_tokens: int) -> Iterator[Sequence[list[int]]]:
    """Yields prompts in order, together as many as have `max_tokens`; a longer one is alone."""
    start = total = 0
    for index, prompt in enumerate(prompts):
        if total + len(prompt) > max_tokens and index > start:
            yield prompts[start:index]
            start, total = index, 0
        total += len(prompt)
    if prompts:
        yield prompts[start:]


def embed_all(
    model: CausalLM,
    lock: AbstractContextManager[Any],
    cache: PagedCache,
    prompts: Sequence[list[int]],
    pooling: Pooling,
    max_tokens: int,
) -> Iterator[npt.NDArray[np.float32]]:
    """Yields a vector [hidden_size] for each prompt, whose states are computed in steps under `lock`.

    `"last"` and `"cls"` are the states of the last and of the first token, `"mean"` is the mean of all. The prompts of
    a step have `max_tokens` together, and write nothing to the cache. A longer one is computed in chunks over a cache
    of its own; in one step if the model cannot.
    """
    for batch in batches(prompts, max_tokens):
        prompt, parts = batch[0], []
        if len(prompt) > max_tokens and model.mixed_steps_problem(cache.blocks.block_size) is None:
            blocks = cache.blocks.blocks_for(len(prompt))
            kv_cache, table = cache.another(blocks), np.arange(blocks, dtype=np.int32)[None]
            chunks = [(start, [prompt[start : start + max_tokens]]) for start in range(0, len(prompt), max_tokens)]
            steps = [_step(chunk, pooling, kv_cache, table, start) for start, chunk in chunks]
        else:
            steps = [_step(batch, pooling, cache.caches)]
        for step in steps:
            with lock:
                parts.append(as_float32(model.run_step(step)).copy())
        states = np.concatenate(parts)
        if not np.isfinite(states).all():
            raise EngineError("The hidden states have numbers that are not finite")
        ends = np.cumsum([*map(len, batch)] if pooling == "mean" else [len(parts)] * len(batch))
        for part in np.split(states, ends[:-1]):
            # The mean is a sum in double precision, whose order no other prompt changes.
            mean = pooling == "mean"
            yield part.mean(0, np.float64).astype(np.float32) if mean else part[0 if pooling == "cls" else -1]


def _step(prompts: Sequence[list[int]], pooling: Pooling, cache: KVCache, table: Any = None, start: int = 0) -> Step:
    """Returns the step of whole prompts, or with a block table, of the tokens of one prompt from `start` on."""
    lengths = np.array([*map(len, prompts)], dtype=np.int32)
    ends = lengths.cumsum()
    positions = start + np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    return Step(
        np.array([token_id for prompt in prompts for token_id in prompt], dtype=np.int64),
        positions,
        table is None,
        cache,
        table,
        np.full(ends[-1], -1, dtype=np.int32) if table is None else positions.astype(np.int32),
        start + lengths,
        start + int(lengths.max()),
        {"last": ends - 1, "cls": ends - lengths, "mean": np.arange(ends[-1])}[pooling],
        q_lens=None if table is None else lengths,
        extras={"hidden_states": True},
    )


def cut(vector: npt.NDArray[np.float32], dimensions: int | None, normalize: bool) -> npt.NDArray[np.float32]:
    """Returns the first numbers of a vector, as one of length 1 if `normalize`; zeros stay zeros."""
    vector = vector[:dimensions]
    if not normalize:
        return vector
    length = np.linalg.norm(vector.astype(np.float64))
    return vector if length == 0 else (vector / length).astype(np.float32)
