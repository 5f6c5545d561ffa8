# SPDX-License-Identifier: Apache-2.0
"""The options that stack on a model, and what they declare about each other, from which the tests are generated.

A row chooses a level of each factor. Pairs of levels that exclude each other are found by asking those who declare it:
`APART` of the runner, the class of a family's configuration, the backends of an op, and the model's
`mixed_steps_problem`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from atb_core.errors import AtbError
from atb_core.graph.custom_ops import supports
from atb_core.graph.ops.moe import MoeTopkSoftmax
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.base.moe_config import MoeConfig
from atb_core.models.base.window_config import WindowConfig
from atb_core.models.families import CONFIGS, MODELS, families
from atb_core.runner.arguments import check_together

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}


@dataclass(frozen=True, eq=False)
class Level:
    """One choice of a factor.

    Attributes:
        name: of the choice; empty for the one that changes nothing.
        arguments: of `ModelRunner`.
        config: fields of `config.json`.
        without_mixed_steps: what happens on a model that has none: "refused", or "off" for options that are documented
            to have no effect there; empty if the option needs no such steps.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    without_mixed_steps: str = ""

    @property
    def is_cheap(self) -> bool:
        """Returns true for a level that rows have beyond what pairs need: a group starts processes."""
        return self.name != "" and "tensor_parallel_size" not in self.arguments

    def __str__(self) -> str:
        return self.name


NOTHING = Level("")
WINDOW = Level("window", config={"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1})
#: The first level of each factor is the one of runs that are about other factors.
FACTORS: dict[str, tuple[Level, ...]] = {
    "family": (
        Level("qwen2"), Level("llama"), Level("qwen3"),
        Level("qwen2_moe", config={**EXPERTS, "shared_expert_intermediate_size": 64}),
        Level("qwen3_moe", config=EXPERTS),
    ),
    "backend": (
        Level("cpu", {"backend": "cpu"}), Level("reference", {"backend": "reference"}),
        Level("atb-sim", {"backend": "atb-sim", "dtype": "float16"}),
    ),
    "weights": (Level("float"), Level("W8A8"), Level("W8A8_DYNAMIC"), Level("W4A16"), Level("GPTQ")),
    "adapters": (NOTHING, *(Level(name, {"lora_modules": {"one": "path"}}) for name in ("one adapter", "adapters"))),
    "chunks": (NOTHING, Level("chunks", {"max_num_batched_tokens": 8}, without_mixed_steps="off")),
    "prefixes": (NOTHING, Level("prefixes", {"enable_prefix_caching": True}, without_mixed_steps="off")),
    "speculation": (
        NOTHING,
        Level("speculation", {"speculative_config": {"prompt_lookup_min": 1}}, without_mixed_steps="refused"),
    ),
    "processes": (NOTHING, Level("tp 2", {"tensor_parallel_size": 2})),
    "window": (NOTHING, WINDOW),
    "cache": (NOTHING, Level("int8 kv", {"kv_cache_dtype": "int8"})),
}  # fmt: skip
Row = dict[str, Level]
Pair = tuple[tuple[str, Level], tuple[str, Level]]


def config_of(row: Row) -> dict[str, Any]:
    """Returns the fields of `config.json` of a row."""
    return {**SIZES, **row["family"].config, **row["window"].config}


@cache
def config_cls(family: str) -> type[Any]:
    return families().load(CONFIGS, family)  # type: ignore[no-any-return]


@cache
def mixed_steps_problem(family: str, backend: str, has_window: bool) -> str | None:
    """Returns what a model says about steps with any number of tokens; it has no weights."""
    row = {name: levels[0] for name, levels in FACTORS.items()}
    row["family"] = next(each for each in FACTORS["family"] if each.name == family)
    row["window"] = WINDOW if has_window else NOTHING
    config = config_cls(family).from_dict({**config_of(row), "model_type": family, "torch_dtype": "float16"})
    model = families().load(MODELS, family)(MindIELLMConfig(config), None, backend=backend)
    return model.mixed_steps_problem(16)  # type: ignore[no-any-return]


def refusal(row: Row) -> str | None:
    """Returns the reason, or a part of it, for which a row is declared to be impossible; `None` if it must run."""
    family, backend, has_window = row["family"].name, row["backend"].name, row["window"].name != ""
    config = config_cls(family)
    try:
        check_together(**{name: value for level in row.values() for name, value in level.arguments.items()})
    except AtbError as error:
        return str(error).splitlines()[0]
    if has_window and not issubclass(config, WindowConfig):
        return "sliding_window"
    if issubclass(config, MoeConfig) and not supports(MoeTopkSoftmax, backend.removesuffix("-sim")):
        return MoeTopkSoftmax.__name__
    if any(level.without_mixed_steps == "refused" for level in row.values()):
        return mixed_steps_problem(family, backend, has_window)
    return None


def has_options_that_are_off(row: Row) -> bool:
    """Returns true if an option of the row is declared to have no effect on its model."""
    needs = any(level.without_mixed_steps == "off" for level in row.values())
    problem = mixed_steps_problem(row["family"].name, row["backend"].name, row["window"].name != "")
    return needs and problem is not None


def default_row(*chosen: tuple[str, Level]) -> Row:
    """Returns the row of the first levels, with those that are chosen."""
    return {**{factor: levels[0] for factor, levels in FACTORS.items()}, **dict(chosen)}


def pairs() -> Iterator[Pair]:
    """Returns the pairs of levels of different factors that a row of nothing else can have or not."""
    for (one, ones), (other, others) in itertools.combinations(FACTORS.items(), 2):
        for a, b in itertools.product(ones, others):
            yield (one, a), (other, b)


@cache
def sorted_pairs() -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Returns the pairs that must run, those that are refused, and those of an option that has no effect."""
    runs, refused, off = [], [], []
    for pair in pairs():
        row = default_row(*pair)
        (refused if refusal(row) else off if has_options_that_are_off(row) else runs).append(pair)
    return runs, refused, off


def covering_rows() -> list[Row]:
    """Returns rows in which each pair that must run occurs, chosen one by one for the most pairs that did not yet."""
    runs, refused, off = sorted_pairs()
    missing, apart, rows = dict.fromkeys(runs), {*refused, *off}, []
    while missing:
        row: Row = dict(next(iter(missing)))
        for factor in sorted(FACTORS, key=lambda each: -len(FACTORS[each])):
            if factor not in row:
                row[factor] = max(
                    (level for level in FACTORS[factor] if not apart.intersection(_pairs_with(row, factor, level))),
                    key=lambda level: (
                        sum(pair in missing for pair in _pairs_with(row, factor, level)),
                        level.is_cheap,
                    ),
                )
        row = {factor: row[factor] for factor in FACTORS}
        for pair in itertools.combinations(row.items(), 2):
            missing.pop(pair, None)
        rows.append(row)
    return rows


def _pairs_with(row: Row, factor: str, level: Level) -> list[Pair]:
    order = list(FACTORS)
    both = [sorted([(factor, level), each], key=lambda item: order.index(item[0])) for each in row.items()]
    return [(one, other) for one, other in both]


def name_of(row: Row) -> str:
    """Returns the levels of a row that change something."""
    return ", ".join(level.name for level in row.values() if level.name)
