# SPDX-License-Identifier: Apache-2.0
"""Everything that reads files of others: how its files are made, and how they are read as far as users would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tokenizers
from checkpoint.checkpoints import entry, safetensors_bytes
from gguf import GGMLQuantizationType
from gguf_bytes import TINY, byte_level_metadata, tiny_gguf
from runner.templates import CHATML, HEADERS, TOOLS_IN_XML
from runner.tiny_tokenizers import byte_fallback, byte_level
from site_directory import Site
from synthetic import Package

from atb_cli.plugin_doctor.checks import check_metadata
from atb_core.checkpoint.opening import checkpoint_at, open_checkpoint
from atb_core.errors import AtbError
from atb_core.graph import DataType, Dim, Network, Tensor
from atb_core.graph.passes import run_passes
from atb_core.models.base.router import router_of
from atb_core.nn import functional as F
from atb_core.plugins.admission import refusal
from atb_core.plugins.once import forget
from atb_core.plugins.scan import environment
from atb_core.runner.generation_config import default_values
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.tokenizer import Tokenizer
from atb_core.settings import load_settings
from atb_testing.dot import to_dot
from atb_testing.serialize import load_network, save_network

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Reader:
    """A way in which files are read.

    Attributes:
        seeds: makes intact files, one set after the other, by their paths in a folder.
        changed: which files of a set are changed: those whose names end so.
        read: reads the folder; an `AtbError` is as good as an answer.
    """

    seeds: Callable[[], list[Files]]
    changed: tuple[str, ...]
    read: Callable[[Path], object]

    @cached_property
    def sets(self) -> list[Files]:
        """The intact files, made once."""
        return self.seeds()


def _weights(folder: Path) -> None:
    with checkpoint_at(folder).weights() as loader:
        for name in loader.names():
            loader.shape(name), loader.dtype(name), loader.nbytes(name)
            loader.get(name)


def _safetensors() -> list[Files]:
    types = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "I32": 4, "I64": 8, "BOOL": 1}
    header, at = {}, 0
    for name, size in types.items():
        header[f"model.{name}.weight"] = entry(name, [2, 3], at, at + 6 * size)
        at += 6 * size
    return [{"model.safetensors": safetensors_bytes({"__metadata__": {"format": "pt"}, **header}, bytes(at))}]


def _index() -> list[Files]:
    shards = {
        f"model-{i}.safetensors": safetensors_bytes({f"w{i}": entry("F32", [2], 0, 8)}, bytes(8)) for i in range(2)
    }
    index = {"metadata": {"total_size": 16}, "weight_map": {f"w{i}": f"model-{i}.safetensors" for i in range(2)}}
    return [{**shards, "model.safetensors.index.json": _json(index)}]


def _gguf() -> list[Files]:
    kinds = (GGMLQuantizationType.F32, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0, GGMLQuantizationType.F16)
    llama = {key.replace("tiny", "llama", 1): value for key, value in TINY.items()}
    metadata = {**byte_level_metadata("qwen2"), **llama, "general.architecture": "llama"}
    return [{"model.gguf": tiny_gguf(kind, metadata)[0]} for kind in kinds]


def _read_gguf(folder: Path) -> None:
    path = folder / "model.gguf"
    _each(lambda: _weights(path), lambda: _config(path), lambda: _tokenizer(path))


_DECODER = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "tie_word_embeddings": False,
    "use_cache": True,
    "dtype": "bfloat16",
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "norm_topk_prob": True}


def _configs() -> list[Files]:
    families: list[dict[str, Any]] = [
        {"model_type": "llama", "rope_theta": 1e4, "rope_scaling": _LLAMA3, "mlp_bias": False, "head_dim": 8},
        {"model_type": "qwen2", "rope_parameters": _YARN, "use_sliding_window": False, "sliding_window": 32},
        {"model_type": "qwen3", "rope_theta": 1e6, "rope_scaling": None, "attention_bias": False, "head_dim": 8},
        {"model_type": "qwen3_moe", **_EXPERTS, "mlp_only_layers": [], "decoder_sparse_step": 1},
    ]
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe"}
    return [
        {"config.json": _json({"architectures": [f"{names[one['model_type']]}ForCausalLM"], **_DECODER, **one})}
        for one in families
    ]


def _config(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    _each(checkpoint.stored_types, checkpoint.quantization)
    router = router_of(checkpoint)
    config = router.config
    router.check_config(config)
    config.data_type, config.context_length  # noqa: B018 - read for their checks


def _generation() -> list[Files]:
    config = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.05,
        "eos_token_id": [1, 2],
        "pad_token_id": 0,
        "max_new_tokens": 30,
        "transformers_version": "5.0.0",
        "num_beams": 1,
    }
    return [{"config.json": _configs()[0]["config.json"], "generation_config.json": _json(config)}]


def _read_generation(folder: Path) -> None:
    SamplingParams(**default_values(open_checkpoint(folder).generation_config(), "generation_config.json"))


def _tokenizers() -> list[Files]:
    return [_tokenizer_files(tokenizer) for tokenizer in (byte_level(), byte_fallback())]


def _tokenizer_files(tokenizer: tokenizers.Tokenizer) -> Files:
    first = tokenizer.get_vocab_size()
    settings = {
        "bos_token": "<|endoftext|>",
        "eos_token": {"content": "<|im_end|>", "special": True},
        "added_tokens_decoder": {
            str(first): {"content": "<|x|>", "special": True},
            str(first + 1): {"content": "<y>", "special": False, "lstrip": True},
        },
        "additional_special_tokens": ["<|im_start|>"],
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLS_IN_XML}],
        "model_max_length": 10**30,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    return {
        "config.json": _configs()[0]["config.json"],
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(settings),
        "special_tokens_map.json": _json({"bos_token": "<s>", "eos_token": {"content": "</s>"}}),
        "added_tokens.json": _json({"<z>": first + 2}),
        "generation_config.json": _json({"eos_token_id": 2}),
    }


def _tokenizer(path: Path) -> None:
    tokenizer = Tokenizer.from_path(path)
    ids = tokenizer.encode("Hello, world! 你好 <|im_start|> <tool>")
    tokenizer.decode(ids)
    tokenizer.text_decoder(ids[:2])
    tokenizer.eos_token_ids, tokenizer.vocab_size  # noqa: B018 - both are worked out when read


def _templates() -> list[Files]:
    whole = _tokenizers()[0]
    return [{**whole, "chat_template.jinja": text.encode()} for text in (CHATML, HEADERS, TOOLS_IN_XML)]


def _read_template(folder: Path) -> None:
    tokenizer = Tokenizer.from_path(folder)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi {{ 7 * 7 }}"}]
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    _each(
        lambda: tokenizer.apply_chat_template(chat),
        lambda: tokenizer.apply_chat_template(chat, tools=[tool], enable_thinking=False),
    )


def _settings() -> list[Files]:
    text = """
[plugins]
disabled = ["atb-foo"]
only = ["atb-llama", "atb-qwen2"]
strict = false

[plugins.prefer]
llama = "atb-llama"

[engine]
graph = "python"
"""
    return [{"config.toml": text.encode()}]


def _packages() -> list[Files]:
    packages = [Package(number) for number in range(3)]
    packages[1].append(packages[1].metadata, "Requires-Dist: torch>=2.2; python_version >= '3.9'\n")
    files = {name: text for package in packages for name, text in package.files.items()}
    return [{name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}]


def _read_packages(folder: Path) -> None:
    site = Site(folder)
    try:
        families = site.registry().families()
        for plugin in environment().installed:
            _each(lambda plugin=plugin: refusal(plugin), lambda plugin=plugin: list(check_metadata(plugin)))
        for family in families:
            _each(lambda family=family: site.registry().find(family.model_type))
    finally:
        forget()


def _networks() -> list[Files]:
    tokens = Dim("tokens")
    with Network("fuzz") as net:
        x, k = Tensor("x", (tokens, 16), DataType.BF16), Tensor("k", (4, 8, 2, 8), DataType.BF16)
        net.weights_keys |= {"w", "g"}
        q = F.linear(x, Tensor("w", (48, 16), DataType.BF16))
        a, b, c = F.split(q, [16, 16, 16], -1)
        a, b = F.rope(a, b, *(Tensor(n, (tokens, 8), DataType.FLOAT) for n in ("cos", "sin")), Tensor("len", (1,)))
        heads = [part.reshape(lambda s: [s[0], 2, 8]) for part in (a, b, c)]
        F.reshape_and_cache(heads[1], heads[2], k, Tensor("v", (4, 8, 2, 8), DataType.BF16), Tensor("slots", (tokens,)))
        y = F.paged_attention(*heads, head_num=2, kv_lens=Tensor("lens", (Dim("batch"),), DataType.INT32))
        y = F.rms_norm(y.reshape([-1, 16]) + x, Tensor("g", (16,), DataType.BF16), 1e-6)
        weights, chosen, _ = F.moe_topk_softmax(y, 2)
        rows, places, ends = F.moe_init_routing(y, chosen, 2, 16)
        rows = F.grouped_matmul(rows, Tensor("experts", (16, 16, 16), DataType.BF16), group_list=ends, transpose_b=True)
        y = F.moe_token_unpermute(rows, places, weights)
        net.mark_output((F.softmax(y, -1)[1:, :8] * 0.5).to(DataType.FLOAT), "out")
        net.mark_output(F.amax(F.cat([y, x], 0).permute([1, 0]), 0), "most")
        for name in ("w1", "w2"):
            net.weights_keys.add(name)
            net.mark_output(F.linear(x, Tensor(name, (8, 16), DataType.BF16)), f"out_{name}")
    found = []
    for network in (net, run_passes(net, "cpu")):
        with TemporaryDirectory() as folder:
            save_network(network, Path(folder, "n.atbnet"))
            found.append({"n.atbnet": Path(folder, "n.atbnet").read_bytes()})
    return found


def _read_network(folder: Path) -> None:
    network = load_network(folder / "n.atbnet")
    str(network), network.build_engine(backend="cpu"), to_dot(network)


def _rounds() -> list[Files]:
    head = b"$Version=1.0\n$Object.Count=1\n$Object.Length=12\nformat=2\ndtype=1\ndims=2,3\n"
    alike = head.replace(b"12", b"0") + b"data=0_outtensor0.bin\n$End=1\n"
    written = head + b"$Object.data=0,12\n$End=1\n" + bytes(12)
    inner = "1_Layer/0_RmsNormOperation"
    return [{"0_Words/after/outtensor0.bin": written, f"{inner}/after/outtensor0.bin": alike}]


def _read_round(folder: Path) -> None:
    from atb_testing.vendor.rounds import Round

    found = Round(folder)
    for operation in found.operations:
        for path in operation.outputs.values():
            if found.header(path) is not None:
                found.tensor(path)


def _modules() -> list[Files]:
    import torch

    content = BytesIO()
    torch.save(torch.ones(1, 3, 4), content)
    tensor = {"type": "torch.Tensor", "shape": [1, 3, 4], "Max": 1.0, "Min": None, "data_name": "a.pt"}
    record = {"input_args": [tensor], "output": [tensor]}
    data = {f"Module.model.{name}.forward.0": record for name in ("embed_tokens.Embedding", "layers.0.Layer")}
    return [{"dump.json": _json({"level": "L0", "data": data}), "dump_tensor_data/a.pt": content.getvalue()}]


def _read_modules(folder: Path) -> None:
    from atb_testing.vendor.modules import ModuleDump

    found = ModuleDump(folder, 0)
    modules = found.keys()
    _each(lambda: found.check_tokens([1, 2, 3]), *(partial(found.get_tensor, path) for path in modules))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _each(*calls: Callable[[], object]) -> None:
    """Calls all of them; one that refuses the file does not keep the others from reading it."""
    for call in calls:
        with suppress(AtbError):
            call()


READERS = {
    "safetensors": Reader(_safetensors, (".safetensors",), _weights),
    "index": Reader(_index, ("index.json",), _weights),
    "gguf": Reader(_gguf, (".gguf",), _read_gguf),
    "config": Reader(_configs, ("config.json",), _config),
    "generation": Reader(_generation, ("generation_config.json",), _read_generation),
    "tokenizer": Reader(_tokenizers, (".json",), _tokenizer),
    "template": Reader(_templates, (".jinja",), _read_template),
    "settings": Reader(_settings, (".toml",), lambda folder: load_settings(folder / "config.toml", {})),
    "packages": Reader(_packages, ("METADATA", ".txt"), _read_packages),
    "atbnet": Reader(_networks, (".atbnet",), _read_network),
    "round": Reader(_rounds, (".bin",), _read_round),
    "modules": Reader(_modules, (".json", ".pt"), _read_modules),
}
