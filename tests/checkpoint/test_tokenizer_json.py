# SPDX-License-Identifier: Apache-2.0
"""Parts of published tokenizers run in this process; everything else has limits, and fails with an error."""

from __future__ import annotations

import base64
import json
import re
import resource
import time
from typing import Any

import pytest
import tokenizers
from runner.tiny_tokenizers import byte_fallback, byte_level
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from atb_core.checkpoint import TokenizerParts
from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.checkpoint.tokenizer_json import _ALTERNATIVES, _KNOWN, _SPACES, tokenizer_from_json
from atb_core.errors import TokenizerError
from atb_core.runner.tokenizer import Tokenizer

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2, LLAMA3 = _WORDS % "", _WORDS % "{1,3}"
TEXT = "the quick <|im_start|>brown  fox, 你好 naïve 12345\n"


def load(backend: tokenizers.Tokenizer | str | dict[str, Any]) -> tokenizers.Tokenizer | GuardedTokenizer:
    text = backend.to_str() if isinstance(backend, tokenizers.Tokenizer) else backend
    return tokenizer_from_json((text if isinstance(text, str) else json.dumps(text)).encode(), "it")


def changed(**parts: Any) -> dict[str, Any]:
    """The byte-level tokenizer with other parts; what is given for the model is put over it."""
    value = json.loads(byte_level().to_str())
    parts["model"] = {**value["model"], **parts.get("model", {})}
    return {**value, **parts}


def charsmap(**trie: bytes) -> str:
    data = trie.get("size", (1024).to_bytes(4, "little")) + trie.get("units", bytes(1024)) + trie.get("texts", b"")
    return base64.b64encode(data).decode()


def llama() -> tokenizers.Tokenizer:
    backend = byte_fallback()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="$A $B", special_tokens=[("<s>", 1)])
    return backend


def qwen() -> tokenizers.Tokenizer:
    backend = byte_level()
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2), behavior="isolated")
    byte_steps = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_steps])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def bert() -> tokenizers.Tokenizer:
    vocab = {token: number for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "the", "##n", "fox"])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    backend.decoder = decoders.WordPiece()
    return backend


def t5() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("fox", -3.0)], 0))
    backend.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), "▁")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


@pytest.mark.parametrize("make", [byte_level, byte_fallback, llama, qwen, bert, t5])
def test_published_kinds_run_in_this_process(make: Any) -> None:
    loaded = load(make())
    assert isinstance(loaded, tokenizers.Tokenizer)
    assert loaded.encode(TEXT).ids == make().encode(TEXT).ids


# The cuts of GPT-2, Llama 3, Qwen2, GPT-4o, GPT-4, Mistral's Tekken and DeepSeek-V3.
CUTS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    LLAMA3,
    QWEN2,
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
]
RUNS = ["a", " ", "1", "!", "A", "\n", "\r ", "你", "aA", "\t\t\n ", "!a", "'", "\u0301"]


@pytest.mark.parametrize("pattern", CUTS)
def test_the_cuts_of_published_tokenizers_are_known(pattern: str) -> None:
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    assert isinstance(load(changed(pre_tokenizer=cut)), tokenizers.Tokenizer)


@pytest.mark.parametrize("pattern", [*CUTS, *_ALTERNATIVES, *_SPACES])
def test_no_known_cut_takes_more_than_linear_time(pattern: str) -> None:
    assert _KNOWN.fullmatch(pattern)
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    start = time.process_time()
    for run in RUNS:
        split.pre_tokenize_str(run * 10_000)
        split.pre_tokenize_str(run * 10_000 + "\x00")
    assert time.process_time() - start < 5, "a quadratic one takes longer"


@pytest.mark.parametrize("pattern", ["a", r"\s*[\r\n]+", r"\s+(?!\S)|\p{L}+", r"(?:\p{L}+)+", r"\p{N}|", r"|\s+", ""])
def test_other_cuts_are_not_known(pattern: str) -> None:
    assert not _KNOWN.fullmatch(pattern)


@pytest.mark.parametrize(
    "key", ["normalizer", "norm\\u0061lizer", "pre_tokenizer", "model", "decoder", "added_tokens", "post_processor"]
)
def test_a_later_key_does_not_replace_one_that_was_checked(key: str) -> None:
    text = byte_level().to_str().rstrip()
    with pytest.raises(TokenizerError, match=r"has the key .* twice"):
        load(f'{text[:-1]}, "{key}" : {{"type": "Prepend", "prepend": ""}}}}')


def test_words_of_a_vocabulary_are_no_keys() -> None:
    words = ['"type"', "normalizer", "\\u0061", "\\\\u", '"model": {', '\\"vocab": {']
    backend = tokenizers.Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=[]))
    loaded = load(backend)
    assert isinstance(loaded, tokenizers.Tokenizer)
    assert [loaded.id_to_token(number) for number in range(len(words))] == words


NOTHING = {"type": "Sequence", "normalizers": []}
UNUSUAL: dict[str, dict[str, Any]] = {
    "expression": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False}
    },
    "sequence in a sequence": {"normalizer": {"type": "Sequence", "normalizers": [NOTHING]}},
    "untyped": {"normalizer": {"pattern": {"String": "q"}, "content": "k"}},
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_and_harmless_works_behind_the_guard(name: str) -> None:
    text = json.dumps(changed(**UNUSUAL[name]))
    guarded, direct = load(text), tokenizers.Tokenizer.from_str(text)
    assert isinstance(guarded, GuardedTokenizer)
    guarded.add_tokens([AddedToken("<new>", special=True)])
    direct.add_tokens([AddedToken("<new>", special=True)])
    ids = direct.encode(f"{TEXT}<new>").ids
    ours = Tokenizer(TokenizerParts(guarded))  # type: ignore[arg-type]
    assert ours.encode(f"{TEXT}<new>") == ids
    for skip in (True, False):
        assert ours.decode(ids, skip) == direct.decode(ids, skip_special_tokens=skip)
        decoder = ours.text_decoder([], skip)
        assert "".join([*map(decoder.push, ids), decoder.finish()]) == direct.decode(ids, skip_special_tokens=skip)
    assert guarded.token_to_id("<new>") == direct.token_to_id("<new>")
    assert guarded.token_to_id("<none>") is None
    assert guarded.get_added_tokens_decoder()[ids[-1]] == AddedToken("<new>", special=True)


def steps(kind: str, count: int, **step: Any) -> dict[str, Any]:
    return {"type": "Sequence", kind: [step] * count}


HOSTILE: dict[str, dict[str, Any]] = {
    "no trie": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(size=bytes(4))}},
    "a huge trie": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(size=b"\xf0\xff\xff\xff")}},
    "a trie of loops": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(units=b"\xff" * 1024)}},
    "prepends nothing": {"normalizer": {"type": "Prepend", "prepend": ""}},
    "doubles": {"normalizer": steps("normalizers", 40, type="ByteLevel")},
    "grows": {"normalizer": steps("normalizers", 12, type="Replace", pattern={"String": "u"}, content="u" * 9)},
    "grows the answer": {"decoder": steps("decoders", 12, type="Replace", pattern={"String": "u"}, content="u" * 9)},
    "cuts to nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "strips too much": {"decoder": {"type": "Strip", "content": "u", "start": 0, "stop": 9}},
    "a prefix longer than its word": {"model": {"continuing_subword_prefix": "########"}},
    "a prefix across a character": {"model": {"continuing_subword_prefix": "#"}},
    "an unknown piece": {
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q", "type_id": 0}}],
                           "pair": [], "special_tokens": {}}
    },
    "no unknown token": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}},
    "backtracks": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:[a-z ]|[a-z ]{2})+?xb"},
                          "behavior": "Isolated", "invert": False}
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_one_ends_with_an_error_and_memory_stays_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atb_core.checkpoint.guarded_tokenizer._SECONDS", 5.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        tokenizer = Tokenizer(TokenizerParts(load(changed(**HOSTILE[name]))))  # type: ignore[arg-type]
        ids = tokenizer.encode("uuu quick brown fox " * 20)
        tokenizer.decode([*ids, *byte_level().encode("uuu").ids])
    except TokenizerError as error:
        assert re.search("cannot be read|The tokenizer fails", str(error))  # noqa: PT017
    else:
        assert name in ("no trie", "a trie of loops"), "these fail for no character of the text"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_after_a_failure_the_next_text_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = steps("normalizers", 12, type="Replace", pattern={"String": "u"}, content="u" * 9)
    tokenizer = Tokenizer(TokenizerParts(load(changed(normalizer=bomb))))  # type: ignore[arg-type]
    with pytest.raises(TokenizerError, match=r"needs more than|takes more than"):
        tokenizer.encode("u" * 1000)
    assert tokenizer.encode("the") == byte_level().encode("the").ids
