# SPDX-License-Identifier: Apache-2.0
"""Converts older formats of tokenizers by transformers, in a child process: the files are untrusted."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from atb_core.child import Worker, encode, serve
from atb_core.errors import TokenizerError

_SECONDS = 120.0
_MEMORY = 4 << 30


def convert(directory: Path, name: str) -> bytes:
    """Returns the contents of a `tokenizer.json` that says the same as the file `name` of a directory.

    Raises:
        TokenizerError: transformers is missing, or cannot read the file within limits of time and memory.
    """
    worker = Worker("atb_ops.tokenizer_conversion:main")
    try:
        answer = worker.try_ask(encode(str(directory)), _SECONDS, _MEMORY)
    finally:
        worker.end()
    if "missing" in answer:
        raise TokenizerError(
            f"{directory} has its tokenizer only as {name}, which the transformers package converts",
            hint="Run: pip install transformers sentencepiece; or add a tokenizer.json to the directory.",
        )
    if "error" in answer:
        raise TokenizerError(
            f"transformers cannot convert {directory / name}: {answer['error']}",
            hint="Add a tokenizer.json to the directory.",
        )
    return str(answer["text"]).encode()


def main() -> None:
    """Answers with the converted tokenizer of the directory that is asked for."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        transformers = None

    def handle(directory: str, answer: Callable[[object], None]) -> None:
        if transformers is None:
            return answer({"missing": "transformers"})
        try:
            kind = transformers.AutoTokenizer
            converted = kind.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            answer({"text": converted.backend_tokenizer.to_str()})
        except MemoryError:
            raise
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            # transformers advises to run the code, which nothing here does.
            is_code = "trust_remote_code" in str(error)
            cause = "it is code of the checkpoint, and no code of a checkpoint is run" if is_code else str(error)[:300]
            answer({"error": cause or type(error).__name__})

    serve(handle, memory=_MEMORY, sealed=False)
