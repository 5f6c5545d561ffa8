# SPDX-License-Identifier: Apache-2.0
"""Builds the two kinds of tokenizer that GGUF files name, as pipelines of the `tokenizers` library.

A byte-level file says by a name (`tokenizer.ggml.pre`) how text is cut before merging; the cut is part of the model,
so an unknown name is an error and not an approximation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atb_core.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Scheme:
    """Holds the rules by which one family of byte-level tokenizers cuts text."""

    pattern: str | None = None
    """The cut; None is GPT-2's own, which the byte-level step brings."""
    single_digits: bool = False
    """Each digit is cut off before anything else."""
    nfc: bool = False
    ignore_merges: bool = False
    """A piece that is a token is taken as it is, before merges are looked at."""
    adds_bos: bool = False


_GPT2 = _Scheme()
_DIGITS_GPT2 = _Scheme(single_digits=True)
_QWEN2 = _Scheme(pattern=_WORDS % "", nfc=True)
_LLAMA3 = _Scheme(pattern=_WORDS % "{1,3}", ignore_merges=True, adds_bos=True)
_SCHEMES: Mapping[str, _Scheme] = {
    "gpt-2": _GPT2,
    "phi-2": _GPT2,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "command-r": _DIGITS_GPT2,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
}


def pre_tokenizer_adds_bos(name: str) -> bool:
    """Returns true if texts start with BOS where the file does not say."""
    return name in _SCHEMES and _SCHEMES[name].adds_bos


def byte_level_bpe(ids: Mapping[str, int], merges: Sequence[tuple[str, str]], pre: str, source: str) -> Tokenizer:
    """Builds a BPE over bytes written as printable characters, as GPT-2 introduced it."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    scheme = _SCHEMES.get(pre)
    if scheme is None:
        raise TokenizerError(
            f"{source}: how its tokenizer cuts text is given as {pre[:60]!r}, which is not known here "
            f"(known: {', '.join(_SCHEMES)})",
            "Use the model's original directory, whose tokenizer.json says it in full.",
        )
    model = models.BPE(vocab=dict(ids), merges=list(merges), ignore_merges=scheme.ignore_merges)
    tokenizer = Tokenizer(model)
    steps: list[Any] = []
    if scheme.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if scheme.pattern is not None:
        steps.append(pre_tokenizers.Split(Regex(scheme.pattern), behavior="isolated", invert=False))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=scheme.pattern is None))
    if scheme.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece_bpe(
    ids: Mapping[str, int], scores: Sequence[float], space_prefix: bool, unknown: str | None
) -> Tokenizer:
    """Builds a SentencePiece BPE with byte fallback: pieces are merged in the order of their scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    model = models.BPE(
        vocab=dict(ids),
        merges=_merges_from_scores(ids, scores),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    steps: list[Any] = [normalizers.Prepend("▁")] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if space_prefix:
        back.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def _merges_from_scores(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Returns every way to make a piece of two others, best score first."""
    ranked: list[tuple[float, int, int, tuple[str, str]]] = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[index], ids[left], ids[right], (left, right)))
    ranked.sort()
    return [pair for *_, pair in ranked]
