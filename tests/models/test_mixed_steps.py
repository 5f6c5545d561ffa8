# SPDX-License-Identifier: Apache-2.0
"""Steps in which sequences bring any number of new tokens over what the cache has of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core.errors import EngineError, RequestError
from atb_core.features import FeatureDecorator
from atb_core.graph import Tensor
from atb_core.models.base.flash_causal_lm_v3 import torch_to_mindie_graph
from atb_core.nn.functional import gather
from atb_testing import PagedDriver, available_backends

Decorated = torch_to_mindie_graph()(SmallForCausalLM)
PROMPT = [5, 17, 2, 80, 33, 9, 61, 17, 4, 12, 90, 1, 2, 44, 80, 9, 3]
OTHER = [8, 2, 8, 1, 8, 2, 8, 4]


def loaded(cls: Any = Decorated, backend: Any = "reference", max_model_len: int | None = None, **config: Any) -> Any:
    model = cls(small_config(**config), None, backend=backend, max_model_len=max_model_len)
    model.load_weights(MemoryLoader(random_tensors(model)))
    return model


def assert_same(ours: torch.Tensor, expected: torch.Tensor, backend: str) -> None:
    """Equal to the last bit on the cpu engine; elsewhere sums depend on the shapes."""
    if backend == "cpu":
        assert torch.equal(ours, expected)
    else:
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def whole(model: Any, tokens: list[int]) -> torch.Tensor:
    return PagedDriver(model, 1, block_size=4).prefill([tokens])


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("cuts", [[17], [1, 16], [3, 5, 1, 8], [16, 1], [1] * 17])
def test_a_prompt_in_chunks_gives_the_logits_of_the_whole_prompt(backend: str, cuts: list[int]) -> None:
    model = loaded(backend=backend)
    driver = PagedDriver(model, 1, block_size=4)
    chunks = [list(chunk) for chunk in torch.tensor(PROMPT).split(cuts)]
    logits = torch.cat([driver.extend([list(map(int, chunk))]) for chunk in chunks])
    assert_same(logits, whole(model, PROMPT), backend)


@pytest.mark.parametrize("backend", available_backends())
def test_prompts_begin_and_continue_while_others_decode(backend: str) -> None:
    model = loaded(backend=backend)
    driver = PagedDriver(model, 2, block_size=4)
    first = driver.extend([PROMPT[:6], OTHER[:5]])  # two prompts, the first not whole
    second = driver.extend([PROMPT[6:16], OTHER[5:6]])  # its rest, and one token of the other
    third = driver.decode([PROMPT[16], OTHER[6]])
    fourth = driver.extend([[7], OTHER[7:8]], last_only=True)
    ours = torch.cat([first[:6], second[:10], third[:1], fourth[:1]])
    assert_same(ours, whole(model, [*PROMPT, 7]), backend)
    theirs = torch.cat([first[6:], second[10:], third[1:], fourth[1:]])
    assert_same(theirs, whole(model, OTHER), backend)


def test_the_variant_is_recorded_when_first_needed_over_the_same_weights() -> None:
    model = loaded()
    assert frozenset({"mixed"}) not in model.variants.variants
    assert model.supports_mixed_steps
    mixed = model.variants.get("mixed")
    assert mixed.engine.store is model.variants.get("prefill").engine.store
    assert {"q_lens", "block_tables", "lm_head_indices"} <= set(mixed.input_names)
    assert "attention_mask" not in mixed.input_names


def step(model: Any, **changes: Any) -> torch.Tensor:
    """Runs three tokens of one sequence and two of another, which have contexts of five and two."""
    driver = PagedDriver(model, 2, block_size=4, max_len=8)

    def int32(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32)

    arguments = {
        "input_ids": torch.arange(5), "position_ids": torch.tensor([2, 3, 4, 0, 1]), "is_prefill": False,
        "kv_cache": driver.kv_cache, "block_tables": driver.tables,
        "slots": int32(*driver.slots(0, 2, 5), *driver.slots(1, 0, 2)), "input_lengths": int32(5, 2),
        "max_seq_len": 5, "q_lens": int32(3, 2),
    }  # fmt: skip
    return model.forward(**{**arguments, **changes})  # type: ignore[no-any-return]


WRONG: list[tuple[Mapping[str, Any], str]] = [
    ({"q_lens": torch.tensor([3, 1], dtype=torch.int32)}, "q_lens add up to 4, but there are 5 tokens"),
    ({"q_lens": torch.tensor([5, 0], dtype=torch.int32)}, "sequence 1 has 0 new tokens"),
    ({"q_lens": torch.tensor([2, 3], dtype=torch.int32)}, "sequence 1 has 3 new tokens in a context of 2"),
    ({"q_lens": torch.tensor([5], dtype=torch.int32)}, "q_lens has 1 entries and input_lengths 2"),
    ({"q_lens": torch.tensor([[3, 2]], dtype=torch.int32)}, "q_lens has 2 dimensions"),
    ({"q_lens": torch.tensor([3.0, 2.0])}, "q_lens must be of int32 or int64"),
    ({"q_lens": [3, 2]}, "q_lens must be a torch.Tensor or a numpy array, not list"),
    ({"is_prefill": True}, "is_prefill must be False"),
    ({"block_tables": None}, "needs block_tables"),
    ({"input_lengths": torch.tensor([9, 2], dtype=torch.int32)}, "9 tokens does not fit the 8 slots"),
    ({"slots": torch.full((5,), 16, dtype=torch.int32)}, "slot 16 is outside"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_inputs_that_do_not_fit_are_refused(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        step(loaded(), **changes)


def test_lengths_of_another_type_or_a_block_outside_of_the_cache_are_refused() -> None:
    model = loaded(backend="cpu")
    assert step(model).shape == (5, 97)
    with pytest.raises(EngineError, match="q_lens"):
        step(model, q_lens=torch.tensor([3, 2]))
    with pytest.raises(EngineError, match="block"):
        step(model, block_tables=torch.full((2, 2), 99, dtype=torch.int32))


def test_models_without_such_steps_say_why() -> None:
    class Unaware(SmallForCausalLM):
        def forward(self, *, is_prefill: bool, lm_head_indices: Any, q_lens: Any = None, **kwargs: Any) -> Any:
            hidden = self.model(is_prefill=is_prefill, **kwargs)
            hidden = gather(hidden, 0, lm_head_indices) if lm_head_indices is not None else hidden
            return {"model_out": self.lm_head(hidden)}

    model = loaded(torch_to_mindie_graph()(Unaware))
    assert not model.supports_mixed_steps
    with pytest.raises(RequestError, match=r"no steps with q_lens.*tokens of q and rows of block_tables"):
        step(model)
    assert PagedDriver(model, 1).prefill([PROMPT]).shape == (17, 97)


def test_a_model_whose_logits_are_not_of_the_chosen_tokens_has_none() -> None:
    class Everything(SmallForCausalLM):
        def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
            return {"model_out": self.lm_head(self.model(**kwargs))}

    model = torch_to_mindie_graph()(Everything)(small_config(), None, backend="reference")
    assert "lm_head_indices" in model.mixed_steps_problem()


def test_a_feature_that_was_not_made_for_such_steps_forbids_them() -> None:
    class Plain(FeatureDecorator):
        feature_name = "plain"
        is_enabled = True

        def is_activated(self, meta: Any) -> bool:
            return False

    class Aware(Plain):
        feature_name = "aware"
        feature_stackable_whitelist = ("prefill", "decode", "mixed")

    assert not loaded(torch_to_mindie_graph(Plain)(SmallForCausalLM)).supports_mixed_steps
    assert loaded(torch_to_mindie_graph(Aware)(SmallForCausalLM)).supports_mixed_steps


def test_a_rotation_that_depends_on_the_length_forbids_them_where_contexts_get_so_long() -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    sizes = {"max_position_embeddings": 64, "rope_scaling": scaling}
    assert "whole prompt" in loaded(max_model_len=128, **sizes).mixed_steps_problem()
    assert loaded(max_model_len=64, **sizes).supports_mixed_steps
