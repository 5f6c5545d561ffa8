# SPDX-License-Identifier: Apache-2.0
"""Families in the style of ATB-Models run with the root of their imports renamed and nothing else.

The packages in `ported/` are written in the forms that such code has: fourteen positional arguments from model to layer
to attention, `forward` methods that are written out, constructors with `**kwargs`, transformers tokenizers and input
builders, LoRA decorators.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runner.tiny_tokenizers import byte_level
from site_directory import Site, site

from atb_core import ModelRunner, SamplingParams, nn
from atb_core.checkpoint import SilentProgress, open_weights
from atb_core.errors import ConfigError, GraphError, RequestError
from atb_core.features.step import Step
from atb_core.layers import InferenceMode
from atb_core.layers.linear.linear import ColumnParallelLinear
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.feature_decorator.v3.base_decorator import FeatureDecorator
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.input_builder import InputBuilder
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.model_utils import safe_get_tokenizer_from_pretrained
from atb_core.models.base.router import BaseRouter
from atb_core.nn.network import Network
from atb_ops.ported_tokenizer import ported
from atb_testing import available_backends, load_reference, tiny_checkpoint

__all__ = ["site"]  # a fixture

pytest.importorskip("transformers")
# mypy: ignore-errors

COUNT = 24
PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1], list(range(40, 90))]
CHAT = [{"role": "system", "content": "be quick"}, {"role": "user", "content": "the lazy dog"}]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
    "{% if tools %}{{ tools | length }}{% endif %}{% if loud %}!{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def install(site: Site, family: str) -> None:
    """Installs the ported package of a family as pip would."""
    source = Path(__file__).parent / "ported" / f"up_{family}"
    package = site.path / source.name
    package.mkdir()
    for file in source.glob("*.py"):
        (package / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    name = family.capitalize()
    module = f"up_{family}.flash_causal_{family}_v3"
    site.metadata(
        f"up-{family}",
        entry_points=(
            f"[atb_core.routers]\n{family} = up_{family}.router_{family}:{name}Router\n"
            f"[atb_core.configs]\n{family} = up_{family}.config_{family}:{name}Config\n"
            f"[atb_core.models]\n{family} = {module}:Flash{name}ForCausalLMV3\n"
            f"[atb_core.api]\n1 = up_{family}\n"
        ),
    )


@pytest.fixture(params=["qwen2", "llama"])
def checkpoint(request: pytest.FixtureRequest, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with a tokenizer, for which the ported package is preferred to this project's own."""
    family = request.param
    install(site, family)
    monkeypatch.setenv("ATB_PLUGINS_PREFER", f"{family}=up-{family}")
    directory = tiny_checkpoint(tmp_path / family, family, vocab_size=512)
    byte_level().save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return directory


def opened(checkpoint: Path, **options: Any) -> ModelRunner:
    return ModelRunner(str(checkpoint), block_size=16, num_threads=2, **options)


@pytest.mark.parametrize("backend", available_backends())
def test_its_greedy_tokens_are_hugging_faces(checkpoint: Path, backend: str) -> None:
    with opened(checkpoint, backend=backend) as runner:
        outputs = runner.generate(PROMPTS, SamplingParams(max_tokens=COUNT, ignore_eos=True))
    model = load_reference(checkpoint)
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), do_sample=False, min_new_tokens=COUNT, max_new_tokens=COUNT, pad_token_id=0
        )
        assert output.token_ids == expected[0, len(prompt) :].tolist()


def test_its_tokenizer_and_its_input_builder_make_the_prompt(checkpoint: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    tokenizer = safe_get_tokenizer_from_pretrained(str(checkpoint))
    with opened(checkpoint) as runner:
        [plain] = runner.generate(["the quick fox"], SamplingParams(max_tokens=1))
        [chat] = runner.chat([CHAT], SamplingParams(max_tokens=1))
        [called] = runner.chat([CHAT], SamplingParams(max_tokens=1), tools=tools)
    assert plain.prompt_token_ids == tokenizer.encode("the quick fox")
    rendered = {"add_generation_prompt": True, "return_dict": False}
    assert chat.prompt_token_ids == tokenizer.apply_chat_template(CHAT, **rendered)
    assert called.prompt_token_ids == tokenizer.apply_chat_template(CHAT, tools=tools, **rendered)
    assert called.prompt_token_ids != chat.prompt_token_ids


def test_its_parser_for_tool_calls_is_asked_for_by_name(checkpoint: Path) -> None:
    with opened(checkpoint) as runner, pytest.raises(RequestError, match=r"qwen2_5|'llama'"):
        runner.parse_answer("x")


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trust_remote_code"):
        safe_get_tokenizer_from_pretrained(str(tmp_path), trust_remote_code=True)


def test_methods_that_nothing_calls_are_refused() -> None:
    class Router(BaseRouter):
        def get_postprocessor(self):
            return None

    with pytest.raises(GraphError, match="get_postprocessor would never be called"):
        Router("somewhere")


def test_an_input_builder_needs_a_tokenizer_of_transformers() -> None:
    assert ported(None, None) is None
    with pytest.raises(RequestError, match="InputBuilder needs a transformers tokenizer"):
        ported(None, InputBuilder(None))


def test_an_input_builder_shortens_no_conversation() -> None:
    with pytest.raises(RequestError, match="adapt_to_max_length"):
        InputBuilder(None).make_context(0, [], adapt_to_max_length=True)


class Doubled(FeatureDecorator):
    """Doubles the logits of the steps that ask for it."""

    @property
    def feature_name(self):
        return "doubled"

    @property
    def is_enabled(self):
        return True

    def is_activated(self, input_metadata):
        return bool(input_metadata.get("doubled")) and input_metadata["input_ids"] is not None

    def variant_arguments(self):
        return {"factor": 2.0}


def test_a_models_status_and_a_features_name_may_be_what_they_are_there(site: Site, tmp_path: Path) -> None:
    install(site, "qwen2")
    from up_qwen2.config_qwen2 import Qwen2Config
    from up_qwen2.flash_causal_qwen2_v3 import FlashQwen2ForCausalLMV3

    @torch_to_mindie_graph(Doubled)
    class Twice(FlashQwen2ForCausalLMV3):
        def forward(self, **kwargs):
            factor = kwargs.pop("factor", 1.0)
            return {"model_out": super().forward(**kwargs)["model_out"] * factor}

    directory = tiny_checkpoint(tmp_path / "model", "qwen2", num_hidden_layers=2)
    config = Qwen2Config.from_dict(json.loads((directory / "config.json").read_text()))
    with open_weights(directory) as loader:
        model = Twice(MindIELLMConfig(config), loader, backend="reference")
        model.load_weights(loader, SilentProgress())
    status = model.model_status
    assert status.enable_intra_layer_add_norm
    assert (status.num_hidden_layers, status.num_attention_heads) == (status.num_layers, status.num_heads)
    assert status.num_key_value_heads == status.num_kv_heads
    heads = (status.num_kv_heads, status.head_dim)
    step = {
        "input_ids": torch.tensor([1, 2]), "position_ids": torch.arange(2), "is_prefill": True,
        "kv_cache": [(torch.zeros(1, 4, *heads), torch.zeros(1, 4, *heads)) for _ in range(2)],
        "slots": torch.arange(2, dtype=torch.int32), "input_lengths": torch.tensor([2], dtype=torch.int32),
    }  # fmt: skip
    plain = model.forward(**step).clone()
    assert torch.equal(model.forward(**step, doubled=True), plain * 2)
    assert torch.equal(model.forward(**step, adapter_ids=["base"]), plain)
    with pytest.raises(RequestError, match="there is no adapter 'french'"):
        model.forward(**step, adapter_ids=["french"])
    assert Doubled.feature_name == "doubled"


def test_a_step_is_a_mapping_of_its_arguments() -> None:
    step = Step(torch.tensor([1]), torch.tensor([0]), True, [], extras={"doubled": True})
    assert step["is_prefill"] is step.is_prefill is True
    assert step.get("adapter_ids") is None and step.get("doubled") is True and "tripled" not in step
    assert len(dict(step)) == len(step) == 12
    with pytest.raises(KeyError, match="tripled"):
        step["tripled"]


def test_a_linear_layer_refuses_lora_by_name() -> None:
    layer = ColumnParallelLinear(BaseConfig(), None, "x", in_features=4, out_features=4)
    with Network(), pytest.raises(GraphError, match="enable_lora"):
        layer(nn.Tensor("x"), inference_mode=InferenceMode.ANY, enable_lora=True)


def test_a_feature_whose_name_depends_on_the_object_is_refused() -> None:
    with pytest.raises(GraphError, match="feature_name of Odd"):

        class Odd(FeatureDecorator):
            @property
            def feature_name(self):
                return self.model.name


@pytest.mark.parametrize("name", ["ALIBI_COMPRESS", "ALIBI_COMPRESS_SQRT", "ALIBI_COMPRESS_LEFT_ALIGN"])
def test_a_mask_that_is_not_supported_is_refused_by_name(name: str) -> None:
    x = nn.Tensor("x")
    kind = getattr(nn.functional.MaskType, name)
    with Network(), pytest.raises(GraphError, match=f"not MASK_TYPE_{name}") as error:
        nn.functional.paged_attention(x, x, x, mask=x, mask_type=kind, kv_lens=x, head_num=2)
    assert "the whole bias of each head" in str(error.value.hint)


def test_one_output_may_be_marked_by_its_own_name_and_lists_are_no_tensors() -> None:
    with Network() as network:
        out = nn.functional.neg(input_=nn.Tensor("x"))
        with pytest.raises(GraphError, match="needs a name"):
            network.mark_output(out)
        out.name = "y"
        network.mark_output(out)
        with pytest.raises(GraphError, match="Activation takes tensors, not a list"):
            nn.functional.activation([out], nn.functional.ActType.SWIGLU)
    assert network.outputs[0].name == "y"
    assert nn.DataType.ACL_BF16 is nn.DataType.BF16
