# SPDX-License-Identifier: Apache-2.0
"""A scaffolded family cannot pass the kit without what its architecture's configuration turns on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import packages
import pytest

from atb_core.models.base.config import BaseConfig
from atb_core.plugins.registry import CONFIGS, load
from atb_testing.scaffold.write import write_package
from atb_testing.suite.package import PackageTests

pytest.importorskip("copier")
pytest.importorskip("transformers")

#: The fields of each architecture that a scaffold lacks.
FIELDS = {
    "mistral": ["sliding_window = 4096"],
    "gemma2": ["sliding_window = 4096", "attn_logit_softcapping = 50.0", "final_logit_softcapping = 30.0",
               "query_pre_attn_scalar = 256", "hidden_activation = 'gelu_pytorch_tanh'"],
    "granite": ["embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"],
    "glm4": ["partial_rotary_factor = 0.5"],
}  # fmt: skip
KNOWN = {field.partition(" = ")[0] for fields in FIELDS.values() for field in fields}
DECLARED = {
    "mistral": "    sliding_window: int | None = 4096\n",
    "granite": "".join(f"    {name}: float = 1.0\n" for name in FIELDS["granite"]),
}
CONFIG = """
from dataclasses import dataclass

from atb_core.models.base.{module} import {base}


@dataclass
class {prefix}Config({base}):
    model_type: str = "{model_type}"
{fields}
"""
MISTRAL = """
from dataclasses import dataclass

from atb_core.models.base.window_config import WindowConfig


@dataclass
class MistralConfig(WindowConfig):
    model_type: str = "mistral"
    sliding_window: int | None = 4096
"""
GRANITE = """
from atb_core.layers.attention.attention import Attention
from atb_core.layers.embedding.word_embedding import ParallelEmbedding
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class GraniteAttention(Attention):
    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, scale=config.attention_multiplier, **kwargs)


class GraniteLayer(DecoderLayer):
    attention_cls = GraniteAttention

    def forward(self, inputs, metadata, **kwargs):
        factor = self.config.residual_multiplier
        hidden = inputs + self.self_attn(self.input_layernorm(inputs), metadata) * factor
        return hidden + self.mlp(self.post_attention_layernorm(hidden)) * factor


class GraniteModel(DecoderModel):
    layer_cls = GraniteLayer

    def __init__(self, config, file_loader, prefix, **kwargs):
        super().__init__(config, file_loader, prefix, **kwargs)
        scale = config.embedding_multiplier
        self.embed_tokens = ParallelEmbedding(config, file_loader, f"{prefix}.embed_tokens", scale=scale)
"""
GRANITE_CAUSAL = """
from atb_core.models.base.decoder_causal_lm import DecoderCausalLM
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph

from atb_granite.modeling import GraniteModel


@torch_to_mindie_graph()
class FlashGraniteForCausalLMV3(DecoderCausalLM):
    model_cls = GraniteModel

    def forward(self, **kwargs):
        return {"model_out": super().forward(**kwargs)["model_out"] * (1 / self.config.logits_scaling)}
"""
GLM4 = """
from dataclasses import dataclass

from atb_core.models.base.config import BaseConfig
from atb_core.plugins.registry import CONFIGS, load


@dataclass
class Glm4Config(BaseConfig):
    model_type: str = "glm4"
    attention_bias: bool = True
    partial_rotary_factor: float = 0.5

    def rope_of(self, layer_idx):
        return self.rope(interleaved=True)
"""
GLM4_MODEL = """
from atb_core.layers.attention.attention import Attention
from atb_core.layers.norm.normalization import RmsNorm
from atb_core.models.base.modeling_python import DecoderLayer, DecoderModel


class Glm4Attention(Attention):
    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, qkv_bias=config.attention_bias, **kwargs)


class Glm4Layer(DecoderLayer):
    attention_cls = Glm4Attention

    def __init__(self, config, file_loader, *args, **kwargs):
        super().__init__(config, file_loader, *args, **kwargs)
        self.post_self_attn_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_self_attn_layernorm")
        self.post_mlp_layernorm = RmsNorm(config, file_loader, f"{self.prefix}.post_mlp_layernorm")

    def forward(self, inputs, metadata, **kwargs):
        hidden = inputs + self.post_self_attn_layernorm(self.self_attn(self.input_layernorm(inputs), metadata))
        return hidden + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(hidden)))


class Glm4Model(DecoderModel):
    layer_cls = Glm4Layer
"""
LOGITS = "test_logits_are_as_close and float32 and (base or odd) or every_field or prefill_equals"


def family(
    folder: Path, model_type: str, config: str = "", modeling: str = "", causal: str = "", select: str = LOGITS
) -> str:
    """Writes the package of a family, with files of its own where they are given; output of some tests of the kit."""
    package = folder / "package"
    names = write_package(f"atb-{model_type}", package, like="llama")
    source = package / "src" / names.package
    if config:
        (source / "config.py").write_text(config, encoding="utf-8")
    for name, more in (("modeling.py", modeling), ("flash_causal_lm.py", causal)):
        if more:
            path = source / name
            path.write_text(more, encoding="utf-8")
    packages.install(package, folder / "site")
    result = packages.run_kit(package, folder, "-k", select, "--timeout", "300")
    return f"status {result.returncode}\n{result.stdout}{result.stderr}"


IMPLEMENTED = {
    "mistral": (MISTRAL, "", ""),
    "granite": (
        CONFIG.format(
            module="config", base="BaseConfig", prefix="Granite", model_type="granite", fields=DECLARED["granite"]
        ),
        GRANITE,
        GRANITE_CAUSAL,
    ),
    "glm4": (GLM4, GLM4_MODEL, ""),
}


@pytest.mark.parametrize("model_type", FIELDS)
def test_the_fields_that_a_scaffolds_class_does_not_have(model_type: str) -> None:
    from transformers import AutoConfig

    # A scaffold's class has the fields of `BaseConfig`.
    unread = BaseConfig.unread_fields(AutoConfig.for_model(model_type).to_dict(), numbers=False)
    assert {field.partition(" = ")[0] for field in FIELDS[model_type]} <= set(unread) <= KNOWN | {"layer_types"}


def test_a_default_other_than_hugging_faces_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Other(load(CONFIGS, "llama")):  # type: ignore[misc]
        rope_theta: float = 5.0

    tests = PackageTests()
    tests.model_type = "llama"
    tests.test_fields_that_a_file_omits_have_hugging_faces_defaults()
    monkeypatch.setattr("atb_testing.suite.package.load", lambda *args: Other)
    with pytest.raises(AssertionError, match=r"Other has other defaults.*rope_theta = 5.0, but 10000.0"):
        tests.test_fields_that_a_file_omits_have_hugging_faces_defaults()


@pytest.mark.parametrize(
    "model_type", ["mistral", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gemma2", "granite", "glm4"))]
)
def test_a_scaffold_fails_and_the_fields_are_named(tmp_path: Path, model_type: str) -> None:
    out = family(tmp_path, model_type, select="every_field")
    assert "status 1" in out
    assert "test_every_field_of_hugging_faces_configuration_is_read" in out
    for field in FIELDS[model_type]:
        assert field in out


@pytest.mark.parametrize("model_type", ["mistral", pytest.param("granite", marks=pytest.mark.slow)])
def test_a_declaration_alone_fails_the_logits(tmp_path: Path, model_type: str) -> None:
    prefix = model_type.capitalize()
    config = CONFIG.format(
        module="config", base="BaseConfig", prefix=prefix, model_type=model_type, fields=DECLARED[model_type]
    )
    out = family(tmp_path, model_type, config)
    assert "status 1" in out
    assert "FAILED tests" in out and "test_logits_are_as_close" in out
    assert "test_every_field_of_hugging_faces_configuration_is_read" not in out


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["mistral", "granite", "glm4"])
def test_with_it_the_family_passes(tmp_path: Path, model_type: str) -> None:
    config, modeling, causal = IMPLEMENTED[model_type]
    out = family(tmp_path, model_type, config, modeling, causal)
    assert "status 0" in out, out
