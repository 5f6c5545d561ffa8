# SPDX-License-Identifier: Apache-2.0
"""The decorated class: variants, inputs, outputs, hooks, features, errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from dlpack_array import DeviceArray, ForeignArray
from small_model import MemoryLoader, SmallForCausalLM, random_tensors, small_config

from atb_core.engine import get_backend
from atb_core.errors import EngineError, GraphError, RequestError
from atb_core.features import FeatureDecorator
from atb_core.graph import DataType, Tensor
from atb_core.models.base.flash_causal_lm_v3 import FlashCausalLMV3, torch_to_mindie_graph
from atb_testing import PagedDriver, available_backends

Decorated = torch_to_mindie_graph()(SmallForCausalLM)


def loaded(cls: Any = Decorated, backend: Any = "reference", max_model_len: int | None = None, **config: Any) -> Any:
    model = cls(small_config(**config), None, backend=backend, max_model_len=max_model_len)
    model.load_weights(MemoryLoader(random_tensors(model)))
    return model


def assert_same(ours: torch.Tensor, expected: torch.Tensor, backend: str) -> None:
    """Equal to the last bit, except on the reference backend, whose sums are torch's."""
    if backend == "reference":
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(ours, expected)


def test_decoration_keeps_the_name_and_the_signature_of_a_step() -> None:
    assert Decorated.__name__ == "SmallForCausalLM"
    assert Decorated.__module__ == SmallForCausalLM.__module__
    assert issubclass(Decorated, SmallForCausalLM)


def test_construction_needs_no_weights_and_builds_no_network() -> None:
    model = Decorated(small_config(), None, backend="reference")
    assert model.variants.variants == {}
    assert model.dtype is DataType.FLOAT
    status = model.model_status
    assert (status.num_layers, status.num_heads, status.num_kv_heads, status.head_dim) == (2, 4, 2, 8)


def test_a_step_before_loading_is_refused() -> None:
    model = Decorated(small_config(), None, backend="reference")
    with pytest.raises(EngineError, match="weights have not been loaded"):
        PagedDriver(model, 1).prefill([[1, 2]])


def test_networks_have_the_inputs_of_their_phase() -> None:
    model = Decorated(small_config(), None, backend="reference")
    common = {"input_ids", "position_ids", "cos_table", "sin_table", "slots", "input_lengths"}
    caches = {f"layer_{i}_{kind}_cache" for i in range(2) for kind in "kv"}
    prefill, decode = (model.variants.get(phase) for phase in ("prefill", "decode"))
    assert set(prefill.input_names) == common | {"attention_mask", "lm_head_indices"}
    assert set(decode.input_names) == common | {"block_tables"}
    assert set(prefill.cache_names) == set(decode.cache_names) == caches
    assert all(t.shape is not None and t.dtype is not None for t in prefill.engine.network.inputs)


def test_variants_are_built_when_first_used_and_kept() -> None:
    model = loaded()
    driver = PagedDriver(model, 1)
    driver.prefill([[1, 2]])
    assert set(model.variants.variants) == {frozenset({"prefill"})}
    driver.decode([3])
    built = dict(model.variants.variants)
    assert set(built) == {frozenset({"prefill"}), frozenset({"decode"})}
    driver.decode([4])
    assert model.variants.variants == built


def test_all_variants_share_one_weight_store() -> None:
    model = loaded()
    prefill, decode = (model.variants.get(phase).engine for phase in ("prefill", "decode"))
    assert prefill.store is decode.store


@pytest.mark.parametrize("backend", available_backends())
def test_a_prefill_equals_the_same_tokens_decoded_one_by_one(backend: str) -> None:
    model = loaded(backend=backend)
    tokens = [5, 17, 2, 80, 33, 9, 61]
    whole = PagedDriver(model, 1).prefill([tokens])
    driver = PagedDriver(model, 1)
    steps = [driver.prefill([tokens[:1]]), *(driver.decode([token]) for token in tokens[1:])]
    assert_same(torch.cat(steps), whole, backend)


@pytest.mark.parametrize("backend", available_backends())
def test_a_sequence_gets_the_same_logits_in_any_company_and_any_block_size(backend: str) -> None:
    model = loaded(backend=backend)
    sequences = [[3, 1, 4, 1, 5, 9], [2, 7], [1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5]]
    together = PagedDriver(model, 3).run([s + [11, 12] for s in sequences], [len(s) for s in sequences])
    for sequence, expected in zip(sequences, together, strict=True):
        alone = PagedDriver(model, 1, block_size=4).run([[*sequence, 11, 12]], [len(sequence)])[0]
        assert_same(alone, expected, backend)


def test_lm_head_indices_choose_rows_and_by_default_all_are_given() -> None:
    model = loaded()
    prompts = [[1, 2, 3], [4, 5]]
    full = PagedDriver(model, 2).prefill(prompts)
    last = PagedDriver(model, 2).prefill(prompts, last_only=True)
    assert full.shape == (5, 97)
    torch.testing.assert_close(last, full[[2, 4]])


def test_logits_are_written_into_one_buffer_from_step_to_step() -> None:
    model = loaded()
    driver = PagedDriver(model, 1)
    driver.prefill([[1, 2]])
    addresses = set()
    for token in (3, 4, 5):
        variant = model.variants.get("decode")
        driver.decode([token])
        addresses.add(variant.outputs({"tokens": 1})["model_out"].ctypes.data)
    assert len(addresses) == 1


def test_a_cache_is_bound_once_and_another_one_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded()
    variant = model.variants.get("decode")
    bound = []
    bind = variant.engine.set_kv_caches
    monkeypatch.setattr(variant.engine, "set_kv_caches", lambda caches: (bound.append(caches), bind(caches)))
    first, second = PagedDriver(model, 1), PagedDriver(model, 1)
    for driver in (first, second):
        driver.prefill([[1, 2]])
        driver.decode([3])
        driver.kv_cache = list(driver.kv_cache)
        driver.decode([4])
    assert len(bound) == 2
    assert bound[1]["layer_0_k_cache"] is second.kv_cache[0][0]


class Step:
    """A valid prefill step whose arguments a test can spoil."""

    def __init__(self, model: Any) -> None:
        self.model = model
        cache = PagedDriver(model, 1).kv_cache
        self.arguments: dict[str, Any] = {
            "input_ids": torch.tensor([1, 2, 3]),
            "position_ids": torch.arange(3),
            "is_prefill": True,
            "kv_cache": cache,
            "block_tables": None,
            "slots": torch.arange(3, dtype=torch.int32),
            "input_lengths": torch.tensor([3], dtype=torch.int32),
            "max_seq_len": 3,
            "lm_head_indices": None,
        }

    def run(self, **changes: Any) -> Any:
        return self.model.forward(**{**self.arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": torch.tensor([1, 97, 3])}, "token id 97 is outside of the vocabulary of 97 tokens"),
        ({"input_ids": torch.tensor([1, -2, 3])}, "token id -2 is outside"),
        ({"position_ids": torch.tensor([0, 1, 64])}, "position 64 is outside of the context of 64 tokens"),
        ({"slots": torch.tensor([0, 1, 128], dtype=torch.int32)}, "slot 128 is outside of a KV cache of 128 slots"),
        ({"input_lengths": torch.tensor([4], dtype=torch.int32)}, "add up to 4, but there are 3 tokens"),
        ({"input_ids": torch.tensor([], dtype=torch.int64)}, "at least one token"),
        ({"slots": None}, "needs slots and input_lengths"),
        ({"input_ids": None}, "input_ids must be a torch.Tensor or a numpy array, not NoneType"),
        ({"position_ids": [0, 1, 2]}, "position_ids must be a torch.Tensor or a numpy array, not list"),
        ({"input_lengths": 3}, "input_lengths must be a torch.Tensor or a numpy array, not int"),
        ({"block_tables": torch.zeros(3, dtype=torch.int32)}, "block_tables has 1 dimensions"),
        ({"slots": torch.arange(2, dtype=torch.int32)}, "slots has 2 entries for 3 tokens"),
        ({"position_ids": torch.arange(2)}, "position_ids has 2 entries for 3 tokens"),
        ({"input_lengths": torch.tensor([4, -1], dtype=torch.int32)}, "input_lengths has -1; the least is 0"),
        ({"kv_cache": None}, r"kv_cache must be a list of \(k_cache, v_cache\), not NoneType"),
        ({"kv_cache": 3}, r"kv_cache must be a list of \(k_cache, v_cache\), not int"),
        ({"kv_cache": torch.zeros(2)}, r"kv_cache must be a list of \(k_cache, v_cache\), not Tensor"),
        ({"kv_cache": [None]}, r"kv_cache must be a list of \(k_cache, v_cache\)"),
        ({"kv_cache": [(torch.zeros(1),) * 3]}, "3 tensors for 2 layers"),
        ({"kv_cache": [(None, None)] * 2}, "kv_cache has something that is neither a torch.Tensor nor a numpy array"),
        ({"kv_cache": []}, "0 tensors for 2 layers"),
        ({"is_prefill": False}, "needs block_tables"),
        (
            {
                "is_prefill": False,
                "block_tables": torch.zeros(3, 1, dtype=torch.int32),
                "input_lengths": torch.tensor([3, 17, 2], dtype=torch.int32),
            },
            "context of 17 tokens does not fit the 16 slots",
        ),
        (
            {
                "is_prefill": False,
                "block_tables": torch.zeros(3, 1, dtype=torch.int32),
                "input_lengths": torch.tensor([3, 0, 2], dtype=torch.int32),
            },
            "input_lengths has 0; the least is 1",
        ),
        (
            {
                "is_prefill": False,
                "block_tables": torch.zeros(2, 1, dtype=torch.int32),
                "input_lengths": torch.tensor([3, 2], dtype=torch.int32),
            },
            "input_lengths has 2 entries for 3 tokens",
        ),
        (
            {
                "is_prefill": False,
                "block_tables": torch.zeros(2, 1, dtype=torch.int32),
                "input_lengths": torch.tensor([3, 2, 1], dtype=torch.int32),
            },
            "block_tables has 2 rows for 3 sequences",
        ),
    ],
)
def test_an_impossible_step_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Step(loaded()).run(**changes)


def test_a_step_takes_arrays_of_other_libraries() -> None:
    step = Step(loaded())
    names = ("input_ids", "position_ids", "slots", "input_lengths")
    foreign = {name: ForeignArray(step.arguments[name]) for name in names}
    expected = step.run().numpy().copy()
    assert np.array_equal(step.run(**foreign), expected)
    with pytest.raises(RequestError, match="slots cannot be read from DeviceArray by DLPack"):
        step.run(slots=DeviceArray(step.arguments["slots"]))


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(RequestError, match="missing 1 required positional argument: 'kv_cache'"):
        loaded().forward(torch.tensor([1]), torch.tensor([0]), True)


@pytest.mark.parametrize(
    "changes",
    [
        {"input_ids": torch.tensor([1, 2, 3], dtype=torch.int32)},
        {"slots": torch.arange(3)},
    ],
)
def test_wrong_types_and_shapes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        Step(loaded()).run(**changes)


def test_a_hook_adds_inputs_of_the_models_own() -> None:
    class Scaled(SmallForCausalLM):
        def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
            logits = super().forward(**kwargs)["model_out"]
            return {"model_out": logits * Tensor("temperature", (1,), DataType.FLOAT)}

        def _update_model_inputs(self, input_metadata: Mapping[str, Any]) -> Any:
            return {"temperature": torch.tensor([float(input_metadata["max_seq_len"])])}, {}, {}

    scaled = Step(loaded(torch_to_mindie_graph()(Scaled))).run()
    torch.testing.assert_close(scaled, Step(loaded()).run() * 3)


def test_a_hook_that_returns_something_else_is_told_what_is_wanted() -> None:
    class Wrong(SmallForCausalLM):
        def _update_model_inputs(self, input_metadata: Mapping[str, Any]) -> Any:
            return {"special", 1}, {}, {}

    with pytest.raises(RequestError, match=r"three dicts .* not \(set, dict, dict\)"):
        Step(loaded(torch_to_mindie_graph()(Wrong))).run()


def test_a_subclass_of_a_decorated_class_can_be_decorated() -> None:
    class Doubled(Decorated):  # type: ignore[misc, valid-type]
        def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
            return {"model_out": super().forward(**kwargs)["model_out"] * 2}

    doubled = Step(loaded(torch_to_mindie_graph()(Doubled))).run()
    torch.testing.assert_close(doubled, Step(loaded()).run() * 2)


def test_a_model_that_returns_no_logits_is_refused() -> None:
    class Silent(SmallForCausalLM):
        def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
            return {"logits": super().forward(**kwargs)["model_out"]}

    with pytest.raises(GraphError, match="'model_out'"):
        loaded(torch_to_mindie_graph()(Silent))


def test_only_models_are_decorated() -> None:
    with pytest.raises(GraphError, match="subclasses of FlashCausalLMV3"):
        torch_to_mindie_graph()(int)  # type: ignore[type-var]
    with pytest.raises(GraphError, match="no subclass of FeatureDecorator"):
        torch_to_mindie_graph(int)  # type: ignore[arg-type]


class Halved(FeatureDecorator):
    """Halves the logits by an input of its own when a step asks for it."""

    feature_name = "halved"
    is_enabled = True

    def is_activated(self, meta: Mapping[str, Any]) -> bool:
        return meta.get("halved") is not None

    def variant_inputs(self) -> dict[str, Tensor]:
        return {"half": Tensor("half", (1,), DataType.FLOAT)}

    def modify_inputs(self, inputs: Any, outputs: Any, runtime_params: Any, meta: Mapping[str, Any]) -> None:
        inputs["half"] = torch.tensor([0.5])


class Featured(SmallForCausalLM):
    def forward(self, **kwargs: Any) -> Mapping[str, Tensor]:
        half = kwargs.pop("half", None)
        logits = super().forward(**kwargs)["model_out"]
        return {"model_out": logits if half is None else logits * half}


def test_a_feature_gets_a_variant_of_its_own_when_it_is_activated() -> None:
    model = loaded(torch_to_mindie_graph(Halved)(Featured))
    step = Step(model)
    plain = step.run().clone()
    assert frozenset({"prefill", "halved"}) not in model.variants.variants
    torch.testing.assert_close(step.run(halved=True), plain / 2)
    assert frozenset({"prefill", "halved"}) in model.variants.variants
    torch.testing.assert_close(step.run(), plain)


def test_active_features_that_do_not_stack_are_named() -> None:
    class Other(Halved):
        feature_name = "other"

    model = loaded(torch_to_mindie_graph(Halved, Other)(Featured))
    with pytest.raises(EngineError, match="'other' does not stack on 'halved'"):
        Step(model).run(halved=True)


def test_a_longer_context_than_the_model_was_opened_with_is_refused() -> None:
    model = loaded(max_model_len=4)
    driver = PagedDriver(model, 1)
    driver.prefill([[1, 2, 3]])
    driver.decode([4])
    with pytest.raises(RequestError, match="context of 4 tokens"):
        driver.decode([5])


def test_a_backend_object_may_be_given() -> None:
    backend = get_backend("reference")
    assert loaded(backend=backend).variants.backend is backend


def test_an_undecorated_base_has_no_forward() -> None:
    with pytest.raises(GraphError, match="defines no forward"):
        FlashCausalLMV3(small_config(), None).forward()
