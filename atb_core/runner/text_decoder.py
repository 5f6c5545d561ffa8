# SPDX-License-Identifier: Apache-2.0
"""Decodes token ids to text one at a time, without ever showing half a character."""

from __future__ import annotations

import codecs
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from atb_core.checkpoint.guarded_tokenizer import GuardedTokenizer
from atb_core.checkpoint.tokenizer_json import library_errors

if TYPE_CHECKING:
    import tokenizers

_REPLACEMENT = "\ufffd"


class TextDecoder(ABC):
    """Decodes the tokens of one sequence as they come.

    Attributes:
        hidden: Texts, by id, of the tokens that are left out.
    """

    hidden: Mapping[int, str] = MappingProxyType({})

    @abstractmethod
    def push(self, token_id: int) -> str:
        """Takes the next token and returns the text that became final with it."""

    @abstractmethod
    def finish(self) -> str:
        """Returns the rest of the text, after the last token; an incomplete character becomes U+FFFD."""


class TokenBytes:
    """Bytes of each token of a byte-level BPE vocabulary, looked up on first use.

    Such a vocabulary writes each of the 256 bytes as one printable character. A token with a character outside that
    alphabet (an added token) stands for its own UTF-8 text.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, hidden: Mapping[int, str]) -> None:
        self._tokenizer = tokenizer
        self._cache = dict.fromkeys(hidden, b"")
        self.hidden = hidden

    def __getitem__(self, token_id: int) -> bytes:
        token_bytes = self._cache.get(token_id)
        if token_bytes is None:
            # An id that the vocabulary does not have (models pad theirs) has no text.
            token = self._tokenizer.id_to_token(token_id) or ""
            alphabet = _byte_of_character()
            try:
                token_bytes = bytes(alphabet[character] for character in token)
            except KeyError:
                token_bytes = token.encode("utf-8", errors="replace")
            self._cache[token_id] = token_bytes
        return token_bytes


@lru_cache(maxsize=1)
def _byte_of_character() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    mapping = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    mapping.update({chr(256 + rank): byte for rank, byte in enumerate(others)})
    return mapping


class ByteLevelDecoder(TextDecoder):
    """Decodes byte-level BPE: exact, and constant work per token.

    The texts joined are the UTF-8 decoding of all tokens' bytes with each malformed part replaced by U+FFFD, as the
    tokenizer decodes the whole list at once.
    """

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._bytes, self.hidden = token_bytes, token_bytes.hidden
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        return self._utf8.decode(self._bytes[token_id])

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class WindowDecoder(TextDecoder):
    """Decodes with any tokenizer: a short window of tokens again with each new one, of which it returns what is new.

    Some decoders treat the first token of a text differently (they drop its leading space), so the window always starts
    before the token it decodes, in the prompt at first, and holds only tokens that have a text.
    """

    # An unfinished character is at most four byte tokens; a window this long without a clean end is garbage, and is
    # shown as it is rather than decoded again and again.
    _LONGEST_WINDOW = 32

    def __init__(self, tokenizer: tokenizers.Tokenizer, prompt_token_ids: list[int], hidden: Mapping[int, str]) -> None:
        self._tokenizer, self.hidden = tokenizer, hidden
        visible = itertools.islice(filter(self._is_visible, reversed(prompt_token_ids)), 4)
        self._window = [*visible][::-1]
        self._shown = len(self._decode(self._window))
        self._clean_end = len(self._window)

    def _is_visible(self, token_id: int) -> bool:
        return token_id not in self.hidden and self._tokenizer.id_to_token(token_id) is not None

    def _decode(self, ids: list[int]) -> str:
        with library_errors("The tokenizer fails"):
            text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def push(self, token_id: int) -> str:
        if not self._is_visible(token_id):
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(_REPLACEMENT) and len(self._window) - self._clean_end < self._LONGEST_WINDOW:
            return ""
        new = text[self._shown :]
        # Everything up to here is final: keep the newest clean stretch as the context of what follows.
        self._window = self._window[self._clean_end :]
        self._clean_end = len(self._window)
        self._shown = len(self._decode(self._window))
        return new

    def finish(self) -> str:
        return self._decode(self._window)[self._shown :]


class TextDecoderFactory:
    """Makes decoders that fit a tokenizer, each for one sequence."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._is_byte_level = _is_byte_level(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        self._special = {token_id: token.content for token_id, token in added.items() if token.special}
        self._token_bytes: dict[bool, TokenBytes] = {}

    def __call__(self, prompt_token_ids: list[int], skip_special_tokens: bool = True) -> TextDecoder:
        """Returns the decoder of a sequence."""
        hidden = self._special if skip_special_tokens else {}
        if not self._is_byte_level:
            return WindowDecoder(self._tokenizer, prompt_token_ids, hidden)
        if skip_special_tokens not in self._token_bytes:
            self._token_bytes[skip_special_tokens] = TokenBytes(self._tokenizer, hidden)
        return ByteLevelDecoder(self._token_bytes[skip_special_tokens])


def _is_byte_level(tokenizer: tokenizers.Tokenizer) -> bool:
    if isinstance(tokenizer, GuardedTokenizer):
        return tokenizer.is_byte_level
    decoder = tokenizer.decoder
    if decoder is None:
        return False
    state = json.loads(decoder.__getstate__())
    if state.get("type") == "Sequence":
        parts = state.get("decoders", [])
        state = parts[0] if len(parts) == 1 else {}
    return bool(state.get("type") == "ByteLevel")
