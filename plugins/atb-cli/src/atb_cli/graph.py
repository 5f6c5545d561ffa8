# SPDX-License-Identifier: Apache-2.0
"""`atb graph`: a model's networks before and after the passes, as text or as a page, and beside another model's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from atb_cli.options import BackendName, OutputFile, model_argument
from atb_cli.output import note, say, writing
from atb_cli.show import open_model
from atb_core.errors import AtbError

if TYPE_CHECKING:
    from atb_core.graph import Network, Node
    from atb_core.models.runtime.variants import VariantStore

_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")
Span = tuple[int, int | None]


def _layers(_ctx: click.Context, _param: click.Parameter, value: str) -> Span:
    """Parses `A:B`, as in Python with open ends allowed, or `N` for one layer."""
    match = re.fullmatch(r"(\d{0,9}):(\d{0,9})|(\d{1,9})", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is neither a layer such as 0 nor a range such as 0:2 or :")
    if match[3] is not None:
        return int(match[3]), int(match[3]) + 1
    return int(match[1] or 0), int(match[2]) if match[2] else None


variant_option = click.option("--variant", type=click.Choice(["prefill", "decode", "mixed"]), default="decode",
                              show_default=True, help="Which network of the model.")  # fmt: skip
features_option = click.option("--features", default="", metavar="A,B",
                               help="Features of the variant, such as multi_lora; those that the model has, or of"
                               " plugins.")  # fmt: skip
layers_option = click.option("--layers", callback=_layers, default="0", show_default=True, metavar="A:B",
                             help="Decoder layers to show, with what is outside of them; ':' shows all.")  # fmt: skip
backend_option = click.option("--backend", type=BackendName(), default="cpu", show_default=True,
                              help="The engine that the graph is prepared for.")  # fmt: skip


@click.command()
@model_argument
@variant_option
@features_option
@click.option("--stage", type=click.Choice(["before", "after", "both"]), default="both", show_default=True,
              help="Before the passes or after them.")  # fmt: skip
@layers_option
@backend_option
@click.option("--against", metavar="MODEL", help="Show what another model's graph, after the passes, has otherwise.")
@click.option("--html", type=OutputFile(), metavar="FILE",
              help="Write one page with all of it instead, which needs nothing else.")  # fmt: skip
def command(
    model: str, variant: str, features: str, stage: str, layers: Span, backend: str, against: str | None,
    html: Path | None,
) -> None:  # fmt: skip
    """Print the graph that MODEL records. No weights are loaded."""
    _check_combination(against, html)
    chosen = [name.strip() for name in features.split(",") if name.strip()]
    stages = networks(model, variant, backend, chosen)
    title, steps = f"{Path(model).name or model} for {backend}", []
    if against is not None:
        title += f", against {Path(against).name or against}"
        stages = {"this": stages["after"], "against": networks(against, variant, backend, chosen)["after"]}
    elif html is not None:
        steps = _steps(*_recorded(model, variant, backend, chosen))
    if html is not None:
        text = _page(title, variant, stages, steps)
        with writing(html):
            html.write_text(text, encoding="utf-8")
        note(f"{html}: open it in a browser")
        return
    if against is not None:
        from atb_cli.graph_diff import changes, diff_text

        first, second = stages.values()
        say(diff_text(first, second, changes(first, second)))
        return
    for name in ("before", "after") if stage == "both" else (stage,):
        say(_text(stages[name], chosen_nodes(stages[name], layers), name))


def networks(model: str, variant: str, backend: str, features: Sequence[str] = ()) -> dict[str, Network]:
    """Returns the network of `variant` as recorded ("before") and as `backend` gets it ("after").

    Raises:
        RequestError: There is no such feature.
        EngineError: The features do not stack; tells the reason.
    """
    variants, key = _recorded(model, variant, backend, features)
    return {"before": variants.network(key), "after": variants.prepared(key)}


def _recorded(model: str, variant: str, backend: str, features: Sequence[str]) -> tuple[VariantStore, frozenset[str]]:
    built = open_model(model).build(backend, features)
    if variant == "mixed":
        built.check_mixed_steps()
    chosen = [each for each in (built.hidden_states, *built.features) if each.feature_name in features]
    return built.variants, built.variants.key(variant, chosen)


def _check_combination(against: str | None, html: Path | None) -> None:
    """Raises UsageError for options that would have no effect."""
    context = click.get_current_context()
    for given, name in ((against, "--against"), (html, "--html")):
        for option in ("stage", "layers"):
            if given is not None and context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{name} shows all of it, so there is nothing to choose with --{option}")


def _page(title: str, variant: str, stages: dict[str, Network], steps: Sequence[tuple[str, Counter[str]]]) -> str:
    from atb_cli.graph_diff import changes
    from atb_cli.graph_page import page

    return page(title, variant, stages, changes(*stages.values()), steps)


def _steps(variants: VariantStore, key: frozenset[str]) -> list[tuple[str, Counter[str]]]:
    """Returns the passes that change a variant, with the nodes of each op that they add or (negative) remove."""
    from atb_core.graph.passes import pipeline

    network = variants.network(key)
    found, before = [], Counter(node.op.name for node in network)
    for step in pipeline(variants.backend.name):
        network = step.run(network)
        now = Counter(node.op.name for node in network)
        difference = Counter({op: now[op] - before[op] for op in now | before if now[op] != before[op]})
        before = now
        if difference:
            found.append((step.name, difference))
    return found


def chosen_nodes(network: Network, layers: Span) -> list[Node]:
    """Returns the nodes of some layers and those outside of all layers; AtbError if there is no such layer."""
    start, stop = layers
    matches = [(node, _LAYER.search(node.module_path)) for node in network]
    numbers = {int(match[1]) for _, match in matches if match is not None}
    wanted = {number for number in numbers if number >= start and (stop is None or number < stop)}
    if numbers and not wanted:
        last = max(numbers)
        given = str(start) if stop == start + 1 else f"{start}:{'' if stop is None else stop}"
        hint = f"For example --layers {last}, --layers 0:2, or --layers : for all."
        raise AtbError(f"--layers {given} chooses none: the model has the layers 0 to {last}", hint=hint)
    return [node for node, match in matches if match is None or int(match[1]) in wanted]


def _text(network: Network, nodes: list[Node], stage: str) -> str:
    from atb_core.graph.printing import network_text

    total = len(network.nodes)
    shown = f"{len(nodes)} of {total} nodes, '--layers :' shows all" if len(nodes) < total else f"{total} nodes"
    text = network_text(network, None if len(nodes) == total else nodes)
    return f"# {stage} the passes: {shown}\n{text}\n"
