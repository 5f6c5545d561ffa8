# SPDX-License-Identifier: Apache-2.0
"""The command `atb estimate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atb_cli.options import model_argument
from atb_cli.output import json_option, say
from atb_profile.estimate.devices import device_names, find_device

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

_POSITIVE = click.IntRange(min=1)


@click.command("estimate", short_help="Tell what a model would take on an Ascend chip, at least.")
@model_argument
@click.option("--soc", type=click.Choice(device_names(), case_sensitive=False), default="Ascend910B4",
              show_default=True, help="The chip.")  # fmt: skip
@click.option("--tp", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
              help="Chips that share the model (tensor parallel).")  # fmt: skip
@click.option("--batch", type=_POSITIVE, default=1, show_default=True, metavar="N",
              help="Sequences that decode together.")  # fmt: skip
@click.option("--context", type=_POSITIVE, default=4096, show_default=True, metavar="N",
              help="Length of these sequences in tokens.")  # fmt: skip
@click.option("--prompt", type=_POSITIVE, metavar="N",
              help="Length of a prompt in tokens. [default: the context]")  # fmt: skip
@click.option("--dtype", type=click.Choice(("auto", "float16", "bfloat16")), default="auto", show_default=True,
              help="Precision of weights and activations; auto takes the checkpoint's.")  # fmt: skip
@click.option("--launch-us", type=click.FloatRange(min=0), default=3.0, show_default=True, metavar="US",
              help="Microseconds from one operation to the next on the device, which no data sheet says.")  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Also write a page with a roofline plot, one file that needs nothing else.")  # fmt: skip
@json_option
def command(
    model: str, soc: str, tp: int, batch: int, context: int, prompt: int | None, dtype: str, launch_us: float,
    html: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Tell what MODEL would take on a chip, at least: memory, time of a decode step, time to a first token.

    From the recorded graph and published figures of the chip; no weights are loaded, and no chip is needed. MODEL may
    be a directory with nothing but config.json.
    """
    from atb_core.errors import AtbError
    from atb_profile.estimate.estimate import Assumptions, estimate
    from atb_profile.estimate.report import report
    from atb_profile.estimate.workload import Workload

    device = find_device(soc)
    built = _build(model, dtype, device.dtypes)
    try:
        more = Workload(built, 2 * tp)
    except AtbError:  # it cannot be divided further
        more = None
    result = estimate(
        Workload(built, tp), device, batch=batch, context=context, prompt=prompt or context, more_ranks=more,
        assumptions=Assumptions(launch=launch_us * 1e-6),
    )  # fmt: skip
    if html is not None:
        from atb_profile.estimate.page import page

        html.write_text(page(result, Path(model).name), encoding="utf-8")
    say(json.dumps({"model": model, **result.to_json()}, indent=2) if as_json else report(result))


def _build(model: str, dtype: str, dtypes: tuple[str, ...]) -> CausalLM:
    """Returns the model with its shapes and without weights, which need not be there."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.errors import RequestError
    from atb_core.models.base.mindie_llm_config import MindIELLMConfig
    from atb_core.models.base.router import router_of
    from atb_core.runner.model_loading import config_with_dtype

    router = router_of(open_checkpoint(model))
    config = config_with_dtype(router.config, dtype)
    name = config.data_type.short
    if name not in dtypes:
        raise RequestError(
            f"the model is {name}, and there are no figures for it on this chip",
            hint=f"Choose another with --dtype: {', '.join(dtypes)}.",
        )
    return router.model_cls(MindIELLMConfig(config), None, backend="reference")
