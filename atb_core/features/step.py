# SPDX-License-Identifier: Apache-2.0
"""The record of one step: one run of a model on real tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from atb_core.errors import RequestError

if TYPE_CHECKING:
    from atb_core.graph.arrays import Array

__all__ = ["Step"]

#: `(k_cache, v_cache)` of each layer, each `[blocks, block_size, num_kv_heads, head_dim]`.
KVCache: TypeAlias = "Sequence[tuple[Array, ...]]"


@dataclass(frozen=True, slots=True, eq=False)
class Step(Mapping[str, Any]):
    """The arguments of one call of a model's `forward`; features and hooks get it as `meta`.

    Arrays are of numpy in the steps of a `ModelRunner`; callers of `forward` may give torch tensors, and others in host
    memory that have `__dlpack__`.

    The record is a mapping too, like ATB-Models' `input_metadata`: `meta["slots"]`, `meta.get("adapter_ids")`. As a
    mapping it has the fields and the `extras` by name.

    Args:
        input_ids: `[T]` int64; in prefill the prompts one after another, in decode one token of each sequence, in a
            mixed step the new tokens of the sequences one after another.
        position_ids: `[T]` int64.
        is_prefill: true for whole prompts, which nothing precedes in the cache.
        kv_cache: the cache; the step writes it.
        block_tables: `[B, max_blocks]` int32, the blocks of each sequence; not read in prefill.
        slots: `[T]` int32, each token's place in the cache, `block * block_size + offset`; negative: not stored.
        input_lengths: `[B]` int32; prompt lengths in prefill, else context lengths with the new tokens.
        max_seq_len: the largest of `input_lengths`.
        lm_head_indices: `[R]` int64, the tokens whose logits are computed, not read in decode; `None`: all.
        adapter_ids: the name of an adapter for each sequence, or the `Adapter` itself; `None` or "base" for none.
        q_lens: `[B]` int32, the number of new tokens of each sequence, for a mixed step: one with `is_prefill` false in
            which sequences bring any number of new tokens. They follow what the cache holds of the sequence already,
            which may be nothing. `None`: a prefill or decode step.
        extras: further arguments by name.
    """

    input_ids: Array
    position_ids: Array
    is_prefill: bool
    kv_cache: KVCache
    block_tables: Array | None = None
    slots: Array | None = None
    input_lengths: Array | None = None
    max_seq_len: int | None = None
    lm_head_indices: Array | None = None
    adapter_ids: Sequence[Any] | None = None
    q_lens: Array | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, *args: Any, **kwargs: Any) -> Step:
        """Returns the record of a call of `forward`; arguments that are no fields become `extras`."""
        extras = {name: kwargs.pop(name) for name in [name for name in kwargs if name not in _FIELDS]}
        return cls(*args, **{**kwargs, "extras": extras})

    @property
    def phase(self) -> str:
        """Returns the base of the step's variant: "prefill", "decode", or "mixed" with `q_lens`."""
        return "prefill" if self.is_prefill else "decode" if self.q_lens is None else "mixed"

    def checked(self) -> Step:
        """Returns the step with arrays of other libraries read by DLPack, for steps that callers write themselves.

        The cache is checked when a model first gets it, because that takes longer than all the rest.

        Raises:
            RequestError: an argument is of a wrong kind.
        """
        given = {name: getattr(self, name) for name in _INTEGERS}
        needed = {name: value for name, value in given.items() if value is not None or name in _NEEDED}
        step = dataclasses.replace(self, **{name: _integers(name, value) for name, value in needed.items()})
        step._check_kinds()
        return step

    def _check_kinds(self) -> None:
        tokens = self.input_ids.shape[0]
        for name, values in (("slots", self.slots), ("position_ids", self.position_ids)):
            if tokens and values is not None and values.shape[0] != tokens:
                raise RequestError(f"{name} has {values.shape[0]} entries for {tokens} tokens")
        if not isinstance(self.is_prefill, bool):
            raise RequestError(f"is_prefill must be True or False, not of type {type(self.is_prefill).__name__}")
        if self.is_prefill and self.q_lens is not None:
            raise RequestError("a step with q_lens is none of whole prompts: is_prefill must be False")
        if self.max_seq_len is not None and not isinstance(self.max_seq_len, int):
            raise RequestError(f"max_seq_len must be an integer, not of type {type(self.max_seq_len).__name__}")
        if self.adapter_ids is not None and (
            isinstance(self.adapter_ids, str) or not isinstance(self.adapter_ids, Sequence)
        ):
            raise RequestError("adapter_ids must be a list with a name or None for each sequence")

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name) if name in _FIELDS else self.extras[name]

    def __iter__(self) -> Iterator[str]:
        yield from _FIELDS
        yield from self.extras

    def __len__(self) -> int:
        return len(_FIELDS) + len(self.extras)


_INTEGERS = ("input_ids", "position_ids", "slots", "input_lengths", "lm_head_indices", "block_tables", "q_lens")
_NEEDED = ("input_ids", "position_ids")
_FIELDS = tuple(each.name for each in dataclasses.fields(Step) if each.name != "extras")


def _integers(name: str, value: Any) -> Any:
    """Returns an argument as an array of numpy or torch; RequestError if it is none of integers, or of another rank."""
    from atb_core.graph.arrays import from_dlpack

    try:
        array = from_dlpack(value)
    except TypeError as error:
        raise RequestError(f"{name} {error}") from None
    if str(array.dtype).removeprefix("torch.") not in ("int32", "int64") or getattr(array, "is_meta", False):
        where = getattr(array, "device", "cpu")
        raise RequestError(f"{name} must be of int32 or int64, not {array.dtype} on {where}")
    if array.ndim != (2 if name == "block_tables" else 1):
        raise RequestError(f"{name} has {array.ndim} dimensions, shape {list(array.shape)}")
    return array
