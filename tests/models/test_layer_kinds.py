# SPDX-License-Identifier: Apache-2.0
"""Layers of one model may differ: in the window, in the rotation, in their class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from small_model import SMALL, MemoryLoader, SmallForCausalLM, random_tensors

from atb_core.checkpoint import SilentProgress
from atb_core.errors import ConfigError, RequestError
from atb_core.features.step import Step
from atb_core.graph.dtype import DataType
from atb_core.models.base.config import BaseConfig
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.modeling_python import BaseLayer, DecoderLayer, DecoderModel
from atb_core.models.base.window_config import WindowConfig
from atb_core.models.runtime.inputs import single_window, window_inputs, window_mask
from atb_core.models.runtime.rotary import Frequencies, rope_frequencies
from atb_testing.driver import PagedDriver

TOKENS = [5, 17, 2, 80, 33, 9, 61, 17, 4, 12, 90, 1, 2, 44]


def model_of(config: BaseConfig, backend: str = "cpu", base: type[SmallForCausalLM] = SmallForCausalLM) -> Any:
    model = torch_to_mindie_graph()(base)(MindIELLMConfig(config), None, backend=backend)
    model.load_weights(MemoryLoader(random_tensors(model)), SilentProgress())
    return model


def logits(model: Any, tokens: list[int], prompt: int) -> torch.Tensor:
    """The logits of the last token; those after the prompt come one by one."""
    return PagedDriver(model, 1, block_size=4).run([tokens], [prompt])[0][-1]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("prompt", [len(TOKENS), 9, 3], ids="prompt of {}".format)
@pytest.mark.parametrize("window", [1, 3, 6])
def test_a_token_sees_the_window_and_no_more(window: int, prompt: int, backend: str) -> None:
    config = WindowConfig.from_dict({**SMALL, "num_hidden_layers": 1, "sliding_window": window})
    model = model_of(config, backend)
    whole = logits(model, TOKENS, prompt)
    for distance in range(len(TOKENS)):
        changed = list(TOKENS)
        changed[-1 - distance] += 1
        assert torch.equal(logits(model, changed, prompt), whole) is (distance >= window), distance


def test_company_changes_nothing_behind_a_window() -> None:
    model = model_of(WindowConfig.from_dict({**SMALL, "sliding_window": 5}))
    prompts = [TOKENS[:9], [3, 1], TOKENS]
    together = PagedDriver(model, 3, block_size=4).run([p + [7, 8, 9] for p in prompts], [9, 2, 14])
    for prompt, expected in zip(prompts, together, strict=True):
        alone = PagedDriver(model, 1, block_size=16).run([prompt + [7, 8, 9]], [len(prompt)])[0]
        assert torch.equal(alone, expected)


def test_the_cache_of_a_window_goes_round() -> None:
    lengths = torch.tensor([6, 2], dtype=torch.int32)
    slots = torch.arange(8, 16, dtype=torch.int32)
    empty = torch.zeros(8, dtype=torch.long)
    given = window_inputs(Step(empty, empty, True, []), slots, lengths, 4, 4)
    # Tokens 2 to 5 of the first prompt are kept, at the places 2, 3, 0, 1.
    assert given["window_slots"].tolist() == [-1, -1, 10, 11, 8, 9, 14, 15]
    tables = torch.tensor([[2, 7], [5, 0]], dtype=torch.int32)
    step = Step(empty[:2], empty[:2], False, [], block_tables=tables)
    given = window_inputs(step, torch.tensor([30, -1], dtype=torch.int32), torch.tensor([7, 3]), 4, 4)
    assert given["window_slots"].tolist() == [10, -1]
    assert given["window_lengths"].tolist() == [4, 3]


def test_the_mask_of_a_window_has_a_limit() -> None:
    mask = window_mask(130, 2, DataType.FLOAT)
    assert mask.shape == (256, 256)
    assert (mask[9] == 0).nonzero()[0].tolist() == [8, 9]
    with pytest.raises(RequestError, match="a prompt of 40000 tokens is too long for a model with a sliding window"):
        window_mask(40_000, 2, DataType.FLOAT)


def test_one_model_has_one_window() -> None:
    assert single_window([8, None, 8]) == 8
    with pytest.raises(ConfigError, match=r"different sliding windows \(4, 8\)"):
        single_window([8, 4])


def test_a_model_whose_layers_have_two_windows_is_refused_by_its_configuration() -> None:
    class TwoWindows(BaseConfig):
        def window_of(self, layer: int) -> int | None:
            return (4, 8)[layer]

    with pytest.raises(ConfigError, match=r"layers with different sliding windows \(4, 8\) are not supported"):
        model_of(TwoWindows.from_dict({**SMALL, "num_hidden_layers": 2}))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_cap_of_the_logits_keeps_them_in_float32(backend: str) -> None:
    class Capped(SmallForCausalLM):
        logits_softcap = 0.25

    config = BaseConfig.from_dict({**SMALL, "torch_dtype": "bfloat16"})
    plain, capped = (logits(model_of(config, backend, base), TOKENS, 9) for base in (SmallForCausalLM, Capped))
    assert plain.dtype is capped.dtype is torch.float32
    assert plain.abs().max() > 0.5
    torch.testing.assert_close(capped, 0.25 * torch.tanh(plain / 0.25), rtol=1e-5, atol=1e-6)


def test_a_factor_of_the_logits_comes_before_their_cap_and_leaves_hidden_states() -> None:
    class Scaled(SmallForCausalLM):
        logits_scale, logits_softcap = 0.5, 0.25

    models = [model_of(BaseConfig.from_dict(SMALL), base=base) for base in (SmallForCausalLM, Scaled)]
    plain, scaled = (logits(model, TOKENS, 9) for model in models)
    torch.testing.assert_close(scaled, 0.25 * torch.tanh(0.5 * plain / 0.25), rtol=1e-5, atol=1e-6)
    nodes = [model.variants.get("prefill", [model.hidden_states]).engine.network.nodes for model in models]
    assert [str(node.op) for node in nodes[0]] == [str(node.op) for node in nodes[1]]


@dataclass
class CappedScores(BaseConfig):
    attn_logit_softcapping: float | None = None


@pytest.mark.parametrize("prefill", [1, len(TOKENS) - 1, len(TOKENS)])
def test_a_cap_of_the_scores_that_the_configuration_declares(prefill: int) -> None:
    plain, capped = (CappedScores.from_dict({**SMALL, "attn_logit_softcapping": cap}) for cap in (None, 0.01))
    ours = logits(model_of(capped), TOKENS, prefill)
    torch.testing.assert_close(ours, logits(model_of(capped, "reference"), TOKENS, prefill), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, logits(model_of(plain), TOKENS, prefill), rtol=1e-3, atol=1e-3)


@dataclass
class Rotations(BaseConfig):
    """The first layer rotates nothing, the second a quarter of the frequencies of the first."""

    kinds: ClassVar[list[str]] = ["none", "slow"]

    def rope_of(self, layer_idx: int) -> Any:
        plain = self.rope()
        return {"none": None, "plain": plain, "slow": replace(plain, theta=1e6)}[self.kinds[layer_idx]]


@pytest.mark.parametrize("kinds", [["plain", "slow"], ["slow", "plain"], ["none", "slow"], ["none", "none"]])
def test_layers_with_rotations_of_their_own(kinds: list[str]) -> None:
    config = Rotations.from_dict(SMALL)
    config.kinds = kinds  # type: ignore[misc]
    model = model_of(config)
    plain = logits(model_of(Rotations.from_dict(SMALL).replace()), TOKENS, 9) if kinds == ["none", "slow"] else None
    ours = logits(model, TOKENS, 9)
    torch.testing.assert_close(ours, logits(model, TOKENS, len(TOKENS)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, logits(model_of(config, "reference"), TOKENS, 9), rtol=1e-4, atol=1e-5)
    if plain is not None:
        assert torch.equal(ours, plain)
    # Without rotation the order of earlier tokens does not matter to the first layer.
    swapped = [TOKENS[1], TOKENS[0], *TOKENS[2:]]
    same = torch.allclose(logits(model, swapped, 9), ours, rtol=1e-4, atol=1e-5)
    assert same is False or kinds == ["none", "none"]


def test_a_family_supplies_frequencies_of_its_own() -> None:
    class Halved(SmallForCausalLM):
        def rope_frequencies(self, rope: Any, seq_len: int | None) -> Frequencies:
            usual = rope_frequencies(rope, seq_len)
            return Frequencies(usual.inverse / 2, usual.scaling)

    linear = BaseConfig.from_dict({**SMALL, "rope_scaling": {"type": "linear", "factor": 2.0}})
    ours, expected = model_of(BaseConfig.from_dict(SMALL), base=Halved), model_of(linear)
    assert torch.equal(logits(ours, TOKENS, 9), logits(expected, TOKENS, 9))


def test_layers_of_different_classes() -> None:
    class Doubled(DecoderLayer):
        def forward(self, inputs: Any, metadata: Any, **kwargs: Any) -> Any:
            return super().forward(inputs, metadata, **kwargs) * 2.0

    class Mixed(DecoderModel):
        def layer_cls_of(self, layer_idx: int) -> type[BaseLayer]:
            return Doubled if layer_idx else DecoderLayer

    class MixedForCausalLM(SmallForCausalLM):
        model_cls = Mixed

    model = model_of(BaseConfig.from_dict(SMALL), base=MixedForCausalLM)
    assert [type(layer) for layer in model.model.layers] == [DecoderLayer, Doubled]
    # The norm at the end takes the factor out again, up to its epsilon.
    plain = model_of(BaseConfig.from_dict(SMALL))
    torch.testing.assert_close(logits(model, TOKENS, 9), logits(plain, TOKENS, 9), rtol=1e-3, atol=1e-4)
