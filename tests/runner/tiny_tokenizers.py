# SPDX-License-Identifier: Apache-2.0
"""Small tokenizers of the two kinds that language models use."""

from __future__ import annotations

import functools

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_CORPUS = [
    "the quick brown fox jumps over the lazy dog. " * 3,
    "你好，世界！你好 👋🏽 naïve café 😀😀",
    "def f(x):\n    return x\n",
]


@functools.lru_cache(maxsize=1)
def _byte_level_json() -> str:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("→→", special=False)])
    text: str = tokenizer.to_str()
    return text


def byte_level() -> tokenizers.Tokenizer:
    """Byte-level BPE, as Qwen, Llama 3 and SmolLM have: any byte is a token, characters may be split."""
    return tokenizers.Tokenizer.from_str(_byte_level_json())


def byte_fallback() -> tokenizers.Tokenizer:
    """A vocabulary in the manner of SentencePiece: words begin with a mark, unknown characters are bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += list("▁abcdefghijklmnopqrstuvwxyz.,!") + ["▁t", "he", "▁the", "▁a", "é", "你"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer
