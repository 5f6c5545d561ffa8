# SPDX-License-Identifier: Apache-2.0
"""Loads `tokenizer.json`, which is a small program that the `tokenizers` library runs without limits.

What is known to take time and memory in proportion to a text runs in this process: the components of published
tokenizers, with parameters in their range. Everything else runs in a child process with limits (`GuardedTokenizer`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.errors import TokenizerError
from atb_core.files import unique_keys

if TYPE_CHECKING:
    import tokenizers

# How much longer a normalizer (a pre-tokenizer, a decoder) may make a text. Precompiled rules of published tokenizers
# make at most 33 bytes of a character, and a mark for a space has 3.
_MAX_GROWTH = 128.0
_MAX_STEPS = 16
_LONGEST_PIECE = 64
# What the expressions of published tokenizers are put together from. Each alternative matches all that it looks at, or
# fails at once; those for spaces do so together. No other expression is known to take time in proportion to a text.
_END = "'s|'t|'re|'ve|'m|'ll|'d"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_ALTERNATIVES = [
    *(f"{_WORD}{_UPPER}*{_LOWER}+{end}|{_WORD}{_UPPER}+{_LOWER}*{end}" for end in (f"(?i:{_END})?", "")),
    *(f"(?i:{_END})", _END, "'(?i:[sdmt]|ll|ve|re)", "'(?i:[sdmt])|'(?i:ll|ve|re)"),
    *(rf"{_WORD}\p{{L}}+", rf"{_WORD}+\p{{L}}+", rf"{_WORD}+\p{{L}}++", rf"{_WORD}[\p{{L}}\p{{M}}]+"),
    *(r" ?\p{L}+", r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+", r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""),
    *(rf"{start}\p{{N}}{count}" for start in ("", " ?") for count in ("", "+", "{1,2}", "{1,3}", "{1,3}+", "{1}")),
    *(
        rf" ?[{signs}]{count}"
        for signs in (r"^\s\p{L}\p{N}", r"^\s\p{L}\p{M}\p{N}", r"\p{P}\p{S}")
        for count in ("+", r"+[\r\n]*", r"+[\r\n/]*", r"++[\r\n]*", r"++[\r\n]*+")
    ),
    *(r"\d", r"\d{1,3}", "[0-9]", "[0-9][0-9][0-9]", r"[\r\n]", r"\n", " {2,}", r"\s", r"\s+", r"[\p{Han}]+"),
    *("[一-龥぀-ゟ゠-ヿ]+", "[一-龥ࠀ-一가-퟿]+", r"\s?\p{L}+", r"\s?\p{P}+"),
]
_SPACES = [r"\s*[\r\n]+|\s+(?!\S)|\s+", r"\s*[\r\n]|\s+(?!\S)|\s+", r"\s+(?!\S)|\s+", r"\s++$|\s*[\r\n]|\s+(?!\S)|\s"]
_any_of, _any_spaces = ("|".join(map(re.escape, each)) for each in (_ALTERNATIVES, [*_ALTERNATIVES, *_SPACES]))
_KNOWN = re.compile(rf"(?:(?:{_any_of})\|)*(?:{_any_spaces})")
_PLAIN = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Nmt", "Strip"},
    "pre_tokenizer": {"BertPreTokenizer", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "UnicodeScripts"}
    | {"Whitespace", "WhitespaceSplit"},
    "post_processor": {"BertProcessing", "ByteLevel", "RobertaProcessing"},
    "decoder": {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "WordPiece"},
}
_INNER = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
# Keys that decide what runs; a later one of the same name counts. Values in a vocabulary are numbers.
_DECISIVE = re.compile(
    r'"(?:added_tokens|normalizer|pre_tokenizer|post_processor|decoder|model|type|vocab|continuing_subword_prefix)"'
    r"\s*:\s*[^\s\d]"
)

_HINT = (
    "It is damaged, or of a newer kind than the installed package tokenizers reads; fetch it again, or upgrade that."
)
_BEFORE_U = re.compile(r"\\\\*(?=u)")


class _UnusualError(Exception):
    """Reports what is not known to be harmless."""


def tokenizer_from_json(data: bytes, source: str) -> tokenizers.Tokenizer:
    """Loads the tokenizer in the contents of a file, in this process or in one with limits; `source` names it.

    Raises:
        TokenizerError: it is damaged, or needs more time or memory than allowed.
    """
    from tokenizers import Tokenizer

    with library_errors(f"{source} cannot be read"):
        text = data.decode("utf-8")
        return _guarded_if_unusual(text, source) or Tokenizer.from_str(text)


def bounded(loaded: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Returns a tokenizer that other code has loaded, or the same in a process with limits; see above."""
    return _guarded_if_unusual(loaded.to_str(), "The tokenizer") or loaded


def _guarded_if_unusual(text: str, source: str) -> tokenizers.Tokenizer | None:
    parts = _known_parts(text)
    try:
        _check(parts)
    except _UnusualError:
        decoder = parts.get("decoder")
        is_byte_level = isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
        # It has the methods that are used here.
        return cast("tokenizers.Tokenizer", GuardedTokenizer(text, source, is_byte_level))
    return None


@contextlib.contextmanager
def library_errors(what: str, hint: str = _HINT) -> Iterator[None]:
    """Raises TokenizerError for what the library raises: bare exceptions, and panics, which are no `Exception`."""
    try:
        yield
    except BaseException as error:
        is_own = isinstance(error, TokenizerError) or not isinstance(error, Exception)
        if not is_own or type(error).__name__ == "PanicException":
            raise TokenizerError(f"{what}: {str(error)[:300]}", hint) from None
        raise


def _known_parts(text: str) -> dict[str, Any]:
    """Returns the tokenizer in `text`, for a BPE without its vocabulary and merges: parsing them takes long."""
    start = text.find('"vocab"')
    with contextlib.suppress(ValueError, RecursionError):
        parts = _parsed(text[:start] + '"vocab":{}}}')
        is_bpe = parts["model"]["type"] == "BPE" and "continuing_subword_prefix" in parts["model"]
        # Without escapes, of an odd number of backslashes, a key is what it looks like.
        is_plain = all(len(run) % 2 == 0 for run in _BEFORE_U.findall(text, start))
        if is_bpe and is_plain and not _DECISIVE.search(text, start + 1):
            return parts
    return _parsed(text)


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        raise ValueError("it is no object with a model")
    value["model"].setdefault("type", None)
    return value


def _check(parts: Mapping[str, Any]) -> None:
    """Raises _UnusualError unless all components are known, with parameters in their range."""
    try:
        growth = {"normalizer": _normalizer_growth, "pre_tokenizer": _cut_growth, "decoder": _decoder_growth}
        for place, rule in growth.items():
            total = 1.0
            for step in _steps(parts.get(place), place):
                total *= 1.0 if step["type"] in _PLAIN[place] else rule(step)
            _demand(total <= _MAX_GROWTH)
        for step in _steps(parts.get("post_processor"), "post_processor"):
            if step["type"] == "TemplateProcessing":
                _check_template(step)
            else:
                _demand(step["type"] in _PLAIN["post_processor"])
        _check_model(parts["model"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _UnusualError from None


def _demand(condition: bool) -> None:
    if not condition:
        raise _UnusualError


def _steps(part: Any, place: str) -> list[Any]:
    steps = [] if part is None else part[_INNER.get(place, "decoders")] if part["type"] == "Sequence" else [part]
    _demand(len(steps) <= _MAX_STEPS)
    return list(steps)


def _replace_growth(pattern: Any, content: str) -> float:
    if "Regex" in pattern:
        _demand(_KNOWN.fullmatch(pattern["Regex"]) is not None)
        return float(max(1, len(content.encode())))
    _demand(len(pattern["String"]) > 0)
    return max(1.0, len(content.encode()) / len(pattern["String"].encode()))


def _normalizer_growth(step: dict[str, Any]) -> float:
    if step["type"] == "Replace":
        return _replace_growth(step["pattern"], step["content"])
    if step["type"] == "Prepend":
        _demand(0 < len(step["prepend"]) <= _LONGEST_PIECE)
        return 1.0
    if step["type"] == "Precompiled":
        return _charsmap_growth(base64.b64decode(step["precompiled_charsmap"], validate=True))
    _demand(step["type"] == "ByteLevel")
    return 2.0


def _charsmap_growth(data: bytes) -> float:
    """Returns the length of the longest replacement: the data is a trie, after its size, and texts that end in NUL."""
    size = int.from_bytes(data[:4], "little")
    _demand(size >= 1024 and size % 4 == 0 and size <= len(data) - 4)
    return float(max(1, *map(len, data[4 + size :].split(b"\0"))))


def _cut_growth(step: dict[str, Any]) -> float:
    if step["type"] == "ByteLevel":
        return 2.0
    _demand(step["type"] == "Split")
    return _replace_growth(step["pattern"], "")


def _decoder_growth(step: dict[str, Any]) -> float:
    if step["type"] == "Replace":
        return _replace_growth(step["pattern"], step["content"])
    _demand(step["type"] == "Strip" and step["start"] <= 1 and step["stop"] == 0)
    return 1.0


def _check_template(step: dict[str, Any]) -> None:
    pieces = step["single"]
    named = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
    _demand(len(pieces) <= _MAX_STEPS and len(pieces) - len(named) <= 1)
    _demand(all(len(step["special_tokens"][name]["ids"]) <= _MAX_STEPS for name in named))


def _check_model(model: dict[str, Any]) -> None:
    checks: dict[str, Callable[[], bool]] = {
        "BPE": lambda: not model["continuing_subword_prefix"],
        "WordPiece": lambda: 0 <= model["max_input_chars_per_word"] <= 1000,
        "WordLevel": lambda: True,
        "Unigram": lambda: all(len(token) <= 1024 for token, _ in model["vocab"]),
    }
    _demand(model["type"] in checks and checks[model["type"]]())
