# SPDX-License-Identifier: Apache-2.0
"""Adapts calls between our layers and layers that are written for ATB-Models.

Layers of ATB-Models take `(inputs, cos_emb, sin_emb, k_cache, v_cache, slots, attention_mask, seq_len, block_table,
token_offset, layer_ids, is_prefill, **kwargs)`, by position or by name; ours take `(inputs, metadata, **kwargs)`. The
record is packed and unpacked only in:

* `call_layer`: our model or layer calls a module of a plugin.
* `accepts_long_form`: a plugin's model or layer calls one of ours.
* `accepts_long_names`: a plugin calls our model with ATB-Models' names of the inputs.
* `in_own_names`: a plugin's model takes those names and is called with ours.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from atb_core.errors import GraphError
from atb_core.graph.tensor import Tensor
from atb_core.layers.attention.metadata import AttentionMetadata
from atb_core.nn.module import Module

Forward = TypeVar("Forward", bound=Callable[..., Any])

#: Our names of a model's inputs, and ATB-Models'.
MODEL_NAMES = {
    "cos_table": "cosine_table",
    "sin_table": "sine_table",
    "slots": "slots_mapping",
    "input_lengths": "seq_len",
    "block_tables": "block_table",
}
# The long form's arguments after `inputs`, in order, by our names.
_LAYER_ORDER = (
    "cos", "sin", "k_cache", "v_cache", "slots", "attention_mask", "input_lengths", "block_tables", "token_offset",
    "layer_ids", "is_prefill",
)  # fmt: skip
_MODEL_ORDER = (
    "input_ids", "position_ids", "cos_table", "sin_table", "k_caches", "v_caches", "slots", "attention_mask",
    "input_lengths", "block_tables", "token_offset", "layer_ids", "is_prefill",
)  # fmt: skip
# ATB-Models' spellings in its layers, attention and models.
_LAYER_NAMES = {
    "cos_emb": "cos", "cos_table": "cos", "sin_emb": "sin", "sin_table": "sin", "slot_mapping": "slots",
    "slots_mapping": "slots", "mask": "attention_mask", "seq_len": "input_lengths", "seq_lens": "input_lengths",
    "block_table": "block_tables", "kv_cache_idx": "layer_ids",
}  # fmt: skip
_MODEL_SPELLINGS = {theirs: ours for ours, theirs in MODEL_NAMES.items()} | {"kv_cache_idx": "layer_ids"}
# Arguments of an unpaged cache, which is not supported.
_UNPAGED = ("token_offset", "layer_ids")


class _Form(NamedTuple):
    """The position of `is_prefill` in a class's long form: the number of `None`s before it, or by keyword."""

    fillers: int
    by_keyword: bool


def call_layer(module: Module, inputs: Tensor, metadata: AttentionMetadata, **kwargs: Any) -> Any:
    """Calls a layer or an attention with the record or in the long form, as the signature of its class requires."""
    form = _form(type(module).forward)
    if form is None:
        return module(inputs, metadata, **kwargs)
    if metadata.window or metadata.interleaved or metadata.cos is None or metadata.q_lens is not None:
        raise GraphError(
            f"{type(module).__name__}.forward takes the arguments of ATB-Models, which have no sliding window, no "
            "interleaved rotation, no layers without rotation and no lengths of new tokens",
            hint="Define forward(self, inputs, metadata, **kwargs), see atb_core.layers.attention.metadata.",
        )
    long = [getattr(metadata, name) for name in _LAYER_ORDER[:8]] + [None] * form.fillers
    if form.by_keyword:
        return module(inputs, *long, is_prefill=metadata.is_prefill, **kwargs)
    return module(inputs, *long, metadata.is_prefill, **kwargs)


@functools.cache
def _form(forward: Callable[..., Any]) -> _Form | None:
    """Returns the long form of a class's `forward`, `None` if it takes the record."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variable = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(placed) < 9 and not variable:
        return None
    names = [p.name for p in placed]
    if "is_prefill" in names[9:]:
        return _Form(names.index("is_prefill") - 9, by_keyword=False)
    if any(p.name == "is_prefill" for p in parameters) or not variable:
        return _Form(sum(p.default is p.empty for p in placed[9:]), by_keyword=True)
    return _Form(2, by_keyword=False)


def accepts_long_form(forward: Forward) -> Forward:
    """Makes `forward(self, inputs, metadata, **kwargs)` accept the long form instead of the record.

    The result raises GraphError for a `token_offset` or `layer_ids`, and if a required argument is missing.
    """

    @functools.wraps(forward)
    def accepting(self: Module, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("metadata"), AttentionMetadata) or (args and isinstance(args[0], AttentionMetadata)):
            return forward(self, inputs, *args, **kwargs)
        given = _named(type(self).__name__, args, kwargs, _LAYER_ORDER, _LAYER_NAMES)
        fields = {name: given.pop(name) for name in AttentionMetadata.__dataclass_fields__ if name in given}
        try:
            metadata = AttentionMetadata(**fields)
        except TypeError as error:
            raise GraphError(f"{type(self).__name__}: {error}") from None
        return forward(self, inputs, metadata, **given)

    return accepting  # type: ignore[return-value]


def accepts_long_names(forward: Forward) -> Forward:
    """Makes a model's `forward` accept ATB-Models' names and order of the inputs, too."""

    @functools.wraps(forward)
    def accepting(self: Module, *args: Any, **kwargs: Any) -> Any:
        if len(args) <= len(_MODEL_ORDER) - 3 and not (_MODEL_SPELLINGS.keys() | _UNPAGED) & kwargs.keys():
            return forward(self, *args, **kwargs)
        return forward(self, **_named(type(self).__name__, args, kwargs, _MODEL_ORDER, _MODEL_SPELLINGS))

    return accepting  # type: ignore[return-value]


def _named(
    called: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], order: tuple[str, ...], spellings: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the arguments of a long call by our names, without those of an unpaged cache."""
    if len(args) > len(order):
        raise GraphError(f"{called} takes at most {len(order)} arguments by position, not {len(args)}")
    given = dict(zip(order, args, strict=False))
    for name, value in kwargs.items():
        ours = spellings.get(name, name)
        if ours in given:
            raise GraphError(f"{called} got the argument {name!r} twice")
        given[ours] = value
    if any(given.pop(name, None) is not None for name in _UNPAGED):
        raise GraphError("token_offset and layer_ids belong to an unpaged cache, which is not supported")
    return given


def in_own_names(forward: Forward) -> Forward:
    """Returns `forward`, or an adapter that is called with our names if it takes ATB-Models' names of the inputs."""
    parameters = inspect.signature(forward).parameters
    renamed = {ours: theirs for ours, theirs in MODEL_NAMES.items() if theirs in parameters and ours not in parameters}
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    unpaged = dict.fromkeys(name for name in ("token_offset", "kv_cache_idx", "layer_ids") if name in required)
    if not renamed and not unpaged:
        return forward

    @functools.wraps(forward)
    def adapted(self: Module, *args: Any, **kwargs: Any) -> Any:
        if args:
            return forward(self, *args, **kwargs)
        return forward(self, **unpaged, **{renamed.get(name, name): value for name, value in kwargs.items()})

    return adapted  # type: ignore[return-value]
