# SPDX-License-Identifier: Apache-2.0
"""Rebuilds the tokenizer that a GGUF file carries for the `tokenizers` library.

A byte-level file names the rules (`tokenizer.ggml.pre`) by which text is cut before merging. They are part of the model
and are not approximated: a name that is not in the table is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf.constants import TokenType

from atb_core.checkpoint import TokenizerParts, library_errors
from atb_core.errors import TokenizerError
from atb_gguf.config import ABSENT_IDS
from atb_gguf.file import read_gguf_header

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PREFIX = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
_HINT = "Use the model's original directory instead."
# Control tokens that end a turn or a text in the formats in use. A file names only one `eos`, yet a chat model may
# stop with another, so all that the vocabulary marks as control tokens count.
_END_TEXTS = frozenset(
    {
        "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|end_of_turn|>",
        "<end_of_turn>", "<|eot|>", "<EOT>", "</s>",
    }
)  # fmt: skip
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Entries that are read here, or change nothing for the supported kinds; besides, those that number a token.
_KNOWN = frozenset(
    {
        "model", "pre", "tokens", "token_type", "token_type_count", "scores", "merges", "add_bos_token",
        "add_eos_token", "add_space_prefix", "eos_token_ids",
    }
)  # fmt: skip
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


def read_gguf_tokenizer(path: Path) -> TokenizerParts:
    """Builds the tokenizer of the GGUF file at `path`. The tokenizer itself never adds a BOS or EOS.

    Raises:
        WeightsError: the file itself is damaged.
        TokenizerError: it has no tokenizer, an inconsistent one, or one of an unsupported kind.
    """
    metadata = read_gguf_header(path).metadata
    vocabulary = _Vocabulary(path, metadata)
    kind, pre = metadata.get(_PREFIX + "model"), str(metadata.get(_PREFIX + "pre", "default"))
    tokenizer = _build(vocabulary, kind, pre)
    vocabulary.refuse_unread()
    bos_id, eos_ids = vocabulary.token_id("bos_token_id"), vocabulary.end_ids()
    add_bos = vocabulary.flag("add_bos_token", kind == "llama" or (pre in _SCHEMES and _SCHEMES[pre].adds_bos))
    add_eos = vocabulary.flag("add_eos_token", False)
    if add_bos and bos_id is None and vocabulary.flag("add_bos_token", False):
        raise vocabulary.fail(f"{_PREFIX}add_bos_token is true, and no bos_token_id says which token that is")
    special_ids = {
        "bos_token": bos_id,
        "eos_token": eos_ids[0] if eos_ids else None,
        "pad_token": vocabulary.token_id("padding_token_id"),
        "unk_token": vocabulary.token_id("unknown_token_id"),
    }
    # Further templates stand under the key of the usual one and their names.
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": text
        for key, text in metadata.items()
        if key == _TEMPLATE or key.startswith(_TEMPLATE + ".")
    }
    return TokenizerParts(
        backend=tokenizer,
        eos_token_ids=frozenset(eos_ids),
        special_tokens={name: vocabulary.tokens[index] for name, index in special_ids.items() if index is not None},
        chat_templates={name: text for name, text in templates.items() if isinstance(text, str) and text},
        bos_id=bos_id if add_bos else None,
        eos_id=special_ids["eos_token"] if add_eos else None,
    )


def _build(vocabulary: _Vocabulary, kind: object, pre: str) -> Tokenizer:
    with library_errors(f"{vocabulary.path}: its tokenizer cannot be built", _HINT):
        if kind == "gpt2":
            tokenizer = _byte_level_bpe(vocabulary.ids(), vocabulary.merges(), pre, str(vocabulary.path))
        elif kind == "llama":
            prefix = vocabulary.flag("add_space_prefix", True)
            tokenizer = _sentencepiece_bpe(vocabulary.ids(), vocabulary.scores(), prefix, vocabulary.unknown_token())
        else:
            raise vocabulary.fail(
                f"its tokenizer is of kind {str(kind)[:40]!r}; supported are 'gpt2' (byte-level BPE) and 'llama'"
            )
        tokenizer.add_special_tokens(vocabulary.added(TokenType.CONTROL))
        tokenizer.add_tokens(vocabulary.added(TokenType.USER_DEFINED))
    return tokenizer


class _Vocabulary:
    """Checks the `tokenizer.ggml.*` entries against each other."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.metadata = metadata
        self.tokens: list[str] = self._list("tokens", str, required=False)
        if not self.tokens:
            raise self.fail("it contains no tokenizer", "Pass a directory with tokenizer.json beside it.")
        types = self._list("token_type", int, len(self.tokens), required=False)
        normal = int(TokenType.NORMAL)
        self._kinds = {index: kind for index, kind in enumerate(types) if kind != normal}

    def fail(self, cause: str, hint: str | None = _HINT) -> TokenizerError:
        return TokenizerError(f"{self.path}: {cause}", hint)

    def refuse_unread(self) -> None:
        """Raises TokenizerError for entries that would change the tokens of a text, or of an answer."""
        entries = {key.removeprefix(_PREFIX): value for key, value in self.metadata.items() if key.startswith(_PREFIX)}
        unread = [
            f"{_PREFIX}{key[:60]} = {str(value)[:40]}"
            for key, value in entries.items()
            if value and key not in _KNOWN and not key.endswith("_token_id")
        ]
        if unread:
            raise self.fail(f"it has entries for the tokenizer that are not supported: {', '.join(unread[:6])}")

    def _list(self, key: str, kind: type, length: int | None = None, required: bool = True) -> list[Any]:
        values = self.metadata.get(_PREFIX + key, [])
        if not isinstance(values, list) or not set(map(type, values)) <= {kind}:
            raise self.fail(f"{_PREFIX + key} is not a list of {kind.__name__}")
        if values and length is not None and len(values) != length:
            raise self.fail(f"{_PREFIX + key} has {len(values)} items for {length} tokens")
        if required and not values:
            raise self.fail(f"{_PREFIX + key} is missing")
        return values

    def ids(self) -> dict[str, int]:
        ids = {token: index for index, token in enumerate(self.tokens)}
        if len(ids) != len(self.tokens):
            raise self.fail(f"{len(self.tokens) - len(ids)} tokens appear twice")
        return ids

    def merges(self) -> list[tuple[str, str]]:
        pairs = []
        for index, merge in enumerate(self._list("merges", str)):
            # A half may begin with a space; the separator is the first one after that.
            cut = merge.find(" ", 1)
            left, right = merge[:cut], merge[cut + 1 :]
            if cut < 0 or not right:
                raise self.fail(f"merge {index} is {merge[:60]!r}, not two parts")
            pairs.append((left, right))
        return pairs

    def scores(self) -> list[float]:
        return self._list("scores", float, len(self.tokens))

    def flag(self, key: str, default: bool) -> bool:
        value = self.metadata.get(_PREFIX + key, default)
        if type(value) is not bool:
            raise self.fail(f"{_PREFIX + key} is {str(value)[:40]!r}, not true or false")
        return value

    def token_id(self, key: str) -> int | None:
        value = self.metadata.get(_PREFIX + key)
        if value in ABSENT_IDS:
            return None
        if type(value) is not int or not 0 <= value < len(self.tokens):
            raise self.fail(f"{_PREFIX + key} is {str(value)[:40]!r}, not one of {len(self.tokens)} tokens")
        return value

    def ids_of(self, kind: TokenType) -> list[int]:
        return [index for index, other in self._kinds.items() if other == kind]

    def added(self, kind: TokenType) -> list[Any]:
        from tokenizers import AddedToken

        special = kind == TokenType.CONTROL
        # Empty texts would match everywhere; some files use them as fillers.
        texts = [self.tokens[index] for index in self.ids_of(kind)]
        return [AddedToken(text, special=special, normalized=False) for text in texts if text]

    def unknown_token(self) -> str | None:
        index = self.token_id("unknown_token_id")
        if index is None:
            index = next(iter(self.ids_of(TokenType.UNKNOWN)), None)
        return None if index is None else self.tokens[index]

    def end_ids(self) -> tuple[int, ...]:
        named = [self.token_id(key) for key in _END_KEYS]
        several = self._list("eos_token_ids", int, required=False)
        if not all(0 <= index < len(self.tokens) for index in several):
            raise self.fail(f"{_PREFIX}eos_token_ids are {str(several)[:60]}, not all of {len(self.tokens)} tokens")
        ends = [index for index in self.ids_of(TokenType.CONTROL) if self.tokens[index] in _END_TEXTS]
        # dict keeps the order and drops repetitions.
        return tuple(dict.fromkeys(index for index in (*named, *several, *ends) if index is not None))


def _byte_level_bpe(ids: Mapping[str, int], merges: Sequence[tuple[str, str]], pre: str, source: str) -> Tokenizer:
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


def _sentencepiece_bpe(
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
