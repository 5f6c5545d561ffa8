# SPDX-License-Identifier: Apache-2.0
"""Bounds follow from the recorded graph and a table of figures; both can be counted by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from atb_core.errors import BackendUnavailableError, RequestError
from atb_profile.costs import Cost
from atb_profile.estimate.command import _build, command
from atb_profile.estimate.devices import device_names, find_device
from atb_profile.estimate.estimate import Assumptions, bound, estimate
from atb_profile.estimate.workload import Phase, Work, Workload

CHIP = find_device("Ascend910B4")
# Sizes of a model of 7 B parameters of the type qwen2, as its config.json has them.
SEVEN_B = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 1e6, "max_position_embeddings": 32768,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def seven_b(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SEVEN_B))
    return tmp_path


@pytest.fixture
def run(seven_b: Path) -> Callable[..., Any]:
    def run(*options: str) -> dict[str, Any]:
        result = CliRunner().invoke(command, [str(seven_b), "--json", *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.output)  # type: ignore[no-any-return]

    return run


def workload(directory: Path, ranks: int = 1) -> Workload:
    return Workload(_build(str(directory), "auto", CHIP.dtypes)[0], ranks)


def matrices() -> int:
    """Counts the elements of the matrices that a step multiplies with."""
    hidden, inner, kv = 3584, 18944, 4 * 128
    return 28 * (hidden * (hidden + 2 * kv) + hidden * hidden + 3 * hidden * inner) + hidden * 152064


def test_memory_is_that_of_the_configuration(run: Callable[..., Any]) -> None:
    small = 28 * (3584 + 2 * 4 * 128 + 2 * 3584) + 3584
    found = run("--batch", "16", "--context", "4096")
    assert found["memory"]["weights"] == 2 * (matrices() + 152064 * 3584 + small)
    assert found["memory"]["kv"] == 16 * 4096 * 2 * 28 * 4 * 128 * 2
    assert found["memory"]["fits"]
    assert not run("--batch", "256")["memory"]["fits"]
    room = run("--batch", str(found["memory"]["max_batch"]))["memory"]
    assert room["fits"]


def test_a_chip_has_no_caches_of_int8(seven_b: Path) -> None:
    result = CliRunner().invoke(command, [str(seven_b), "--kv-cache-dtype", "int8"])
    assert isinstance(result.exception, BackendUnavailableError)
    assert "kv_cache_dtype='int8': ATB's caches of int8 have a fixed scale" in str(result.exception)


def test_a_model_of_7_b_is_bound_by_memory_in_decode_and_by_products_in_prefill(run: Callable[..., Any]) -> None:
    found = run("--batch", "1", "--context", "1024", "--launch-us", "0")
    assert (found["decode"]["bound_by"], found["prefill"]["bound_by"]) == ("memory", "products")
    read = 2 * matrices() + 1024 * 2 * 28 * 4 * 128 * 2
    assert found["decode"]["seconds_at_least"] == pytest.approx(read / 0.8e12, rel=0.01)
    # A prompt needs the logits of its last token alone.
    products = 2 * (1024 * (matrices() - 3584 * 152064) + 3584 * 152064)
    least = products / (20 * 1.5e9 * 8192)
    assert least < found["prefill"]["seconds_at_least"] < 1.3 * least
    assert found["tokens_per_second_at_most"] == pytest.approx(1 / found["decode"]["seconds_at_least"])


def test_what_helps_most_is_named_first(run: Callable[..., Any]) -> None:
    alone = run("--batch", "1", "--context", "256")["advice"]
    assert next(iter(alone)) == "twice as many sequences"
    assert list(alone.values()) == sorted(alone.values(), reverse=True)
    assert alone["twice as many sequences"] == pytest.approx(2.0, rel=0.05)
    assert 1.5 < alone["weights of 8 bits"] < 2.0


@pytest.mark.parametrize(("quantization", "bits"), [("int8", 8), ("int4", 5)])
def test_matrices_of_integers_take_their_bits_and_scales(run: Callable[..., Any], quantization: str, bits: int) -> None:
    plain, found = run(), run("--quantization", quantization)
    layers = matrices() - 3584 * 152064  # the output matrix is larger than the chip's product takes
    saved = plain["memory"]["weights"] - found["memory"]["weights"]
    assert saved == pytest.approx(layers * (16 - bits) / 8, rel=0.001)
    assert plain["decode"]["bytes"] - found["decode"]["bytes"] == saved
    assert plain["decode"]["flops"] == found["decode"]["flops"]
    assert found["quantization"] == quantization
    assert "weights of 8 bits" not in found["advice"]


def test_what_does_not_fit_says_what_would(run: Callable[..., Any], seven_b: Path) -> None:
    assert run("--batch", "1")["memory"]["fits"]
    wide = {**SEVEN_B, "num_hidden_layers": 60}
    (seven_b / "config.json").write_text(json.dumps(wide))
    found = run()
    assert not found["memory"]["fits"]
    assert set(found["fits_with"]) == {"weights of 8 bits", "twice as many chips"}
    text = CliRunner().invoke(command, [str(seven_b)]).output
    assert re.search(r"next +it fits with (weights of 8 bits|twice as many chips) or ", text)
    assert "fewer or shorter sequences" in CliRunner().invoke(command, [str(seven_b), "--batch", "9999"]).output


def test_experts_stay_in_16_bits(seven_b: Path) -> None:
    experts = {"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"], "num_experts": 8,
               "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256,
               "num_hidden_layers": 2}  # fmt: skip
    (seven_b / "config.json").write_text(json.dumps({**SEVEN_B, **experts}))
    model, _ = _build(str(seven_b), "auto", CHIP.dtypes)
    saved = Workload(model).weight_bytes - Workload(model, quantization="int8").weight_bytes
    attention, shared = 3584 * (3584 + 2 * 512) + 3584 * 3584, 3 * 3584 * 256
    assert saved == pytest.approx(2 * (attention + shared), rel=0.001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quantization", "int8", "--soc", "cpu"], "--quantization is for chips"),
        (["--launch-us", "nan"], "nan is not finite"),
        (["--html", "nowhere/page.html"], "is in no folder"),
        (["--html", ""], "'' is no path"),
        (["--html", "/dev/full"], "/dev/full cannot be written: No space left"),
        (["--batch", str(1 << 30)], "is not in the range"),
        (["--context", str(1 << 70)], "is not in the range"),
        (["--soc", "Ascend310P3", "--dtype", "float16", "--quantization", "int4"], "quantises to int8, not to int4"),
    ],
)
def test_what_cannot_be_counted_or_written_is_refused_at_once(seven_b: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(command, [str(seven_b), *options])
    assert result.exit_code != 0
    assert message in result.output + str(result.exception)


def test_a_quantised_checkpoint_and_long_contexts_are_said_to_be_counted_otherwise(
    seven_b: Path, run: Callable[..., Any]
) -> None:
    assert run("--context", "4096")["notes"] == []
    assert "made for 32768 tokens" in run("--context", "65536")["notes"][0]
    method = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (seven_b / "config.json").write_text(json.dumps({**SEVEN_B, **method}))
    assert "quantised (gptq), and counted in bfloat16" in run()["notes"][0]


def test_ranks_divide_matrices_and_heads_and_talk(seven_b: Path) -> None:
    one, four = workload(seven_b), workload(seven_b, 4)
    assert four.weight_bytes == pytest.approx(one.weight_bytes / 4, rel=0.001)
    assert four.kv_bytes_per_token == one.kv_bytes_per_token // 4
    assert one.decode(1, 64).sent == 0
    # Two reductions in a layer, of which a ring sends each element nearly twice, and the rows of both tables.
    assert four.decode(8, 64).sent == (2 * 28 * 8 * 3584 * 2 * 2 + 8 * (152064 + 3584) * 2) * 3 // 4
    assert bound(four.decode(1, 64), CHIP, Assumptions()).seconds["link"] > 0


def test_ranks_beyond_the_heads_of_keys_and_values_share_them(seven_b: Path) -> None:
    (seven_b / "config.json").write_text(json.dumps({**SEVEN_B, "num_attention_heads": 32}))
    assert workload(seven_b, 8).kv_bytes_per_token == workload(seven_b, 4).kv_bytes_per_token


def test_what_cannot_be_divided_is_refused(seven_b: Path) -> None:
    with pytest.raises(RequestError, match="28 attention heads cannot be divided among 8 ranks") as error:
        workload(seven_b, 8)
    assert "among 2, 4 ranks" in str(error.value.hint)


@pytest.mark.parametrize(
    ("cost", "limit", "seconds"),
    [
        (Cost(int(245.76e12), 1), "products", 1.0),
        (Cost(1, int(0.8e12)), "memory", 1.0),
    ],
    ids=["a product", "a copy"],
)
def test_a_node_takes_as_long_as_its_narrower_limit(cost: Cost, limit: str, seconds: float) -> None:
    phase = Phase("decode", 1, [Work("Linear", "layer", cost)] * 2, frozenset(), 0, 0)
    found = bound(phase, CHIP, Assumptions(launch=0.5))
    assert found.seconds[limit] == pytest.approx(2 * seconds)
    assert found.seconds["launches"] == pytest.approx(1.0)
    assert found.total == pytest.approx(3.0)


def test_every_figure_has_a_source(run: Callable[..., Any]) -> None:
    for soc in device_names():
        figures = run("--soc", soc.lower(), "--dtype", "float16")["figures"]
        assert {"memory", "bandwidth", "products"} <= figures.keys()
        assert all(len(figure["source"]) > 20 and figure["value"] > 0 for figure in figures.values())


def test_a_type_without_figures_is_refused(seven_b: Path) -> None:
    with pytest.raises(RequestError, match="the model is bfloat16, and there are no figures"):
        _build(str(seven_b), "auto", find_device("Ascend310P3").dtypes)


def test_the_text_says_that_it_is_a_bound_and_the_page_needs_nothing_else(seven_b: Path, tmp_path: Path) -> None:
    page = tmp_path / "estimate.html"
    result = CliRunner().invoke(command, [str(seven_b), "--html", str(page)], catch_exceptions=False)
    assert "Nothing was measured" in result.output
    assert "bound by memory" in result.output
    html = page.read_text(encoding="utf-8")
    assert "<svg" in html
    assert not re.search(r"(src|href)=|https?://", html)


def test_an_op_without_a_cost_is_named(seven_b: Path) -> None:
    result = estimate(workload(seven_b), CHIP, batch=1, context=64, prompt=64)
    assert not result.decode.phase.unknown
    unknown = Phase("decode", 1, result.decode.phase.work, frozenset({"mine::Op"}), 0, 0)
    assert bound(unknown, CHIP, Assumptions()).phase.unknown == {"mine::Op"}
