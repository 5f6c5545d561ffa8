# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of the `tokenizers` library in a child process with limits on time and memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from atb_core.child import Worker, encode, serve
from atb_core.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_SECONDS = 10.0
# Bytes for the vocabulary of a quarter of a million tokens in three forms, and for what it encodes.
_MEMORY = 2 << 30
#: The properties of an added token.
TOKEN_FLAGS = ("special", "normalized", "single_word", "lstrip", "rstrip")


def _described(token: AddedToken) -> dict[str, Any]:
    return {name: getattr(token, name) for name in ("content", *TOKEN_FLAGS)}


class GuardedTokenizer:
    """Has the methods of `tokenizers.Tokenizer` that this package calls; each is done by the child process.

    Args:
        text: Contents of the file.
        source: Names it in messages.
        is_byte_level: Tells whether tokens are bytes written as characters.

    Raises:
        TokenizerError: the tokenizer is damaged, or needs more time or memory than allowed; also from each method.
    """

    encode_special_tokens = False

    def __init__(self, text: str, source: str, is_byte_level: bool) -> None:
        self.is_byte_level = is_byte_level
        self._text, self._added = text, list[dict[str, Any]]()
        self._worker = Worker("atb_core.checkpoint.guarded_tokenizer:main")
        weakref.finalize(self, self._worker.end)
        self._prepare()
        self._what = f"{source} cannot be read"
        self.get_vocab_size()
        self._what = "The tokenizer fails"

    def _prepare(self) -> None:
        self._worker.end()
        self._worker.first = encode([self._text, self._added])

    def _call(self, name: str, *arguments: object) -> Any:
        answer = self._worker.try_ask(encode([name, *arguments]), _SECONDS, _MEMORY)
        if "error" in answer:
            hint = "Replace the model's tokenizer.json by an intact one."
            raise TokenizerError(f"{self._what}: {answer['error']}", hint)
        return answer["value"]

    def encode(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        """Encodes a text; raises UnicodeEncodeError if it is not valid Unicode."""
        text.encode()
        return SimpleNamespace(ids=self._call("encode", text, add_special_tokens, self.encode_special_tokens))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Decodes tokens."""
        return str(self._call("decode", list(ids), skip_special_tokens))

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """Returns the number of tokens."""
        return int(self._call("get_vocab_size", with_added_tokens))

    def token_to_id(self, token: str) -> int | None:
        """Returns the id of a token, `None` if there is none."""
        return cast("int | None", self._call("token_to_id", token))

    def id_to_token(self, token_id: int) -> str | None:
        """Returns the text of a token, `None` if there is none."""
        return cast("str | None", self._call("id_to_token", token_id))

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Returns the added tokens by id."""
        from tokenizers import AddedToken

        return {number: AddedToken(**token) for number, token in self._call("get_added_tokens_decoder")}

    def add_tokens(self, tokens: Sequence[AddedToken]) -> int:
        """Adds tokens."""
        before = self.get_vocab_size()
        self._added += map(_described, tokens)
        self._prepare()
        return self.get_vocab_size() - before


def without_training(backend: Tokenizer) -> Tokenizer:
    """Switches off what some files keep of their training: padding, truncation, and merges left out at random."""
    if isinstance(backend, GuardedTokenizer):  # its child process has done so
        return backend
    backend.no_padding()
    backend.no_truncation()
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None
    return backend


def main() -> None:
    """Answers calls until the parent ends; the first request holds the tokenizer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    backend: tokenizers.Tokenizer | None = None
    failure: str | None = None

    def load(text: str, added: list[dict[str, Any]]) -> tokenizers.Tokenizer:
        loaded = without_training(tokenizers.Tokenizer.from_str(text))
        loaded.add_tokens([tokenizers.AddedToken(**token) for token in added])
        return loaded

    def handle(request: list[Any], answer: Callable[[object], None]) -> None:
        nonlocal backend, failure
        try:
            if backend is None and failure is None:
                backend = load(*request)
                answer(None)
            elif backend is not None:
                answer({"value": _value(backend, *request)})
            else:
                answer({"error": failure})
        except MemoryError:
            raise
        except BaseException as error:  # a panic of the library is no Exception
            cause = str(error)[:300] or type(error).__name__
            failure = failure or (None if backend else cause)
            answer({"error": cause})

    serve(handle, memory=_MEMORY)


def _value(backend: Any, name: str, *arguments: Any) -> Any:
    if name == "encode":
        backend.encode_special_tokens = arguments[2]
        return backend.encode(arguments[0], add_special_tokens=arguments[1]).ids
    value = getattr(backend, name)(*arguments)
    if name == "get_added_tokens_decoder":
        return [[number, _described(token)] for number, token in value.items()]
    return value
