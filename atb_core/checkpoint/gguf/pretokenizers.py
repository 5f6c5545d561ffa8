# SPDX-License-Identifier: Apache-2.0
"""Builds the two kinds of tokenizer that GGUF files name, as pipelines of the `tokenizers` library.

A byte-level file names the rules (`tokenizer.ggml.pre`) by which text is cut before merging. They are part of the model
and are not approximated: a name that is not in the table is an error.
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
    """Holds the rules by which one family of byte-level tokenizers cuts text.

    Attributes:
        pattern: the cut; `None` is GPT-2's own, which the byte-level step applies.
        single_digits: each digit is cut off before the other cuts.
        nfc: the text is normalized to NFC.
        ignore_merges: a piece that is a token is not merged from parts.
        adds_bos: a text starts with BOS where the file does not say.
    """

    pattern: str | None = None
    single_digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False
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
            f"{source}: its tokenizer cuts text by the rules {pre[:60]!r}, which are not supported "
            f"(supported: {', '.join(_SCHEMES)})",
            "Use the model's original directory, whose tokenizer.json holds the rules.",
        )
    tokenizer = Tokenizer(models.BPE(vocab=dict(ids), merges=list(merges), ignore_merges=scheme.ignore_merges))
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

    merges = _merges_from_scores(ids, scores)
    tokenizer = Tokenizer(
        models.BPE(vocab=dict(ids), merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    steps: list[Any] = [normalizers.Prepend("▁")] if space_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if space_prefix:
        back.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(back)
    return tokenizer


def _merges_from_scores(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Returns every pair of pieces that makes a third one, best score first."""
    ranked = [
        (-scores[index], ids[left], ids[right], (left, right))
        for piece, index in ids.items()
        for left, right in ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        if left in ids and right in ids
    ]
    return [pair for *_, pair in sorted(ranked)]
