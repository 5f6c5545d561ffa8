# SPDX-License-Identifier: Apache-2.0
"""The command `atb estimate`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atb_cli.options import OutputFile, finite, kv_cache_dtype_option, load_runner, model_argument
from atb_cli.output import json_option, say, writing
from atb_core.errors import RequestError
from atb_core.names import DTYPES, QUANTIZATIONS
from atb_profile.estimate.devices import device_names, find_device

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_profile.estimate.devices import Device
    from atb_profile.estimate.measured import Comparison
    from atb_profile.estimate.workload import Workload

_POSITIVE = click.IntRange(min=1)
# Each sequence is counted, and lengths are numbers that models and clocks can hold.
_SEQUENCES, _TOKENS = click.IntRange(1, 1 << 20), click.IntRange(1, 1 << 40)
_CPU = "cpu"


@click.command("estimate", short_help="Tell what a model would take on an Ascend chip, or takes here.")
@model_argument
@click.option("--soc", type=click.Choice((*device_names(), _CPU), case_sensitive=False), default="Ascend910B4",
              show_default=True, help="The chip; cpu is this machine's processor.")  # fmt: skip
@click.option("--tp", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
              help="Chips that share the model (tensor parallel).")  # fmt: skip
@click.option("--batch", type=_SEQUENCES, default=1, show_default=True, metavar="N",
              help="Sequences that decode together.")  # fmt: skip
@click.option("--context", type=_TOKENS, default=4096, show_default=True, metavar="N",
              help="Length of these sequences in tokens.")  # fmt: skip
@click.option("--prompt", type=_TOKENS, metavar="N",
              help="Length of a prompt in tokens. [default: the context]")  # fmt: skip
@click.option("--dtype", type=click.Choice(("auto", *DTYPES)), default="auto", show_default=True,
              help="Precision of weights and activations; auto takes the checkpoint's.")  # fmt: skip
@kv_cache_dtype_option
@click.option("--quantization", type=click.Choice(QUANTIZATIONS),
              help="Count weights that are quantised on loading. [default: all in --dtype]")  # fmt: skip
@click.option("--launch-us", type=click.FloatRange(min=0), callback=finite, metavar="US",
              help="Microseconds from one operation to the next, which no data sheet says."
              " [default: 3; with --soc cpu as measured]")  # fmt: skip
@click.option("--num-threads", type=_POSITIVE, metavar="N",
              help="With --soc cpu: the engine's threads. [default: the processors]")  # fmt: skip
@click.option("--limits", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="With --soc cpu: JSON with the limits of this machine; what it lacks is measured and kept there."
              " [default: limits.json in the user's cache folder]")  # fmt: skip
@click.option("--measure", is_flag=True,
              help="With --soc cpu: measure the limits again, in turns with steps of the model, which needs its"
              " weights.")  # fmt: skip
@click.option("--html", type=OutputFile(), metavar="FILE",
              help="Also write a page with a roofline plot, one file that needs nothing else.")  # fmt: skip
@json_option
def command(
    model: str, soc: str, tp: int, batch: int, context: int, prompt: int | None, dtype: str, kv_cache_dtype: str,
    quantization: str | None,
    launch_us: float | None, num_threads: int | None, limits: Path | None, measure: bool, html: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Tell what MODEL would take on a chip, at least: memory, time of a decode step, time to a first token.

    From the recorded graph and published figures of the chip; no weights are loaded, and no chip is needed. MODEL may
    be a directory with nothing but config.json. With --soc cpu, from limits that are measured on this machine.
    """
    from atb_core.runner.arguments import check_together
    from atb_profile.estimate.estimate import Assumptions, estimate
    from atb_profile.estimate.report import report
    from atb_profile.estimate.workload import Workload

    is_cpu = soc == _CPU
    backend = _CPU if is_cpu else "atb"
    _check(is_cpu, tp, quantization, bool(num_threads or limits or measure))
    check_together(kv_cache_dtype=kv_cache_dtype, backend=backend)
    built, notes = _build(model, dtype, DTYPES if is_cpu else find_device(soc).dtypes, kv_cache_dtype)
    notes += _notes(built, max(context, prompt or 0))
    workload = Workload(built, tp, backend, quantization)
    compared: list[Comparison] = []
    if is_cpu:
        lengths = batch, context, prompt or context
        options = {"dtype": built.config.data_type.short, "kv_cache_dtype": kv_cache_dtype}
        device, compared = _processor(model, workload, num_threads, limits, measure, lengths, options)
    else:
        device = find_device(soc)
        if quantization and quantization not in device.integers:
            known = " and ".join(device.integers)
            raise RequestError(f"on {device.soc} this project quantises to {known}, not to {quantization}")
    launch = (device.launch.value if device.launch else 3e-6) if launch_us is None else launch_us * 1e-6
    result = estimate(
        workload, device, batch=batch, context=context, prompt=prompt or context,
        others=_others(built, workload, device), assumptions=Assumptions(launch=launch),
    )  # fmt: skip
    if html is not None:
        from atb_profile.estimate.page import page

        text = page(result, Path(model).name, notes)
        with writing(html):
            html.write_text(text, encoding="utf-8")
    if as_json:
        beside = [{**each._asdict(), "step": str(each.step)} for each in compared]
        about = {"model": model, **result.to_json(), "notes": notes}
        say(json.dumps({**about, **({"compared": beside} if measure else {})}, indent=2))
        return
    say(report(result, notes))
    if compared:
        from atb_profile.estimate.measured import table

        say("\n" + table(compared))


def _check(is_cpu: bool, tp: int, quantization: str | None, for_cpu: bool) -> None:
    if not is_cpu and for_cpu:
        raise click.UsageError("--num-threads, --limits and --measure are for --soc cpu")
    if is_cpu and tp > 1:
        raise click.UsageError("--tp is for chips: the threads of --soc cpu share one memory")
    if is_cpu and quantization:
        raise click.UsageError("--quantization is for chips: the limits of --soc cpu are those of floats")


def _notes(built: CausalLM, longest: int) -> list[str]:
    """Returns what an estimate leaves open of a model and its lengths."""
    positions = built.config.max_position_embeddings
    if positions and longest > positions:
        return [f"The model is made for {positions} tokens; longer ones are counted as if it took them."]
    return []


def _others(built: CausalLM, workload: Workload, device: Device) -> dict[str, Workload]:
    """Returns the model in other forms, by what they are called."""
    from atb_core.errors import AtbError
    from atb_profile.estimate.workload import Workload

    others = {}
    is_cpu = device.backend == _CPU
    if workload.quantization is None and "int8" in device.integers:
        others["weights of 8 bits"] = Workload(built, workload.ranks, _CPU if is_cpu else "atb", "int8")
    if not is_cpu:
        with suppress(AtbError):  # it cannot be divided further
            others["twice as many chips"] = Workload(built, 2 * workload.ranks, "atb", workload.quantization)
    return others


def _processor(
    model: str, workload: Workload, threads: int | None, limits: Path | None, measure: bool,
    lengths: tuple[int, int, int], options: dict[str, str],
) -> tuple[Device, list[Comparison]]:  # fmt: skip
    """Returns this machine with its limits, and what was measured beside them."""
    from atb_core.engine.cpu import CpuBackend
    from atb_profile.estimate.measured import Step, compare
    from atb_profile.estimate.processor import keep, kept_processor, limits_path

    path, dtype = limits or limits_path(), options["dtype"]
    count = CpuBackend(num_threads=threads).num_threads
    if not measure:
        return kept_processor(count, dtype, path), []
    batch, context, prompt = lengths
    # Decoding begins before the context is reached.
    steps = [Step("decode", batch, max(1, context - 8)), Step("prefill", 1, prompt)]
    runner = load_runner(
        model, backend=_CPU, num_threads=count, load_tokenizer=False, enable_prefix_caching=False,
        max_model_len=max(context, prompt) + 32, **options,
    )  # fmt: skip
    device, compared = compare(runner, workload, steps)
    keep(device, count, dtype, path)
    return device, compared


def _build(model: str, dtype: str, dtypes: tuple[str, ...], kv_cache_dtype: str = "auto") -> tuple[CausalLM, list[str]]:
    """Returns the model with its shapes and without weights, which need not be there; and what is not counted of it."""
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.base.mindie_llm_config import MindIELLMConfig
    from atb_core.models.base.router import router_of
    from atb_core.runner.model_loading import config_with_dtype

    checkpoint = open_checkpoint(model)
    router = router_of(checkpoint)
    config = config_with_dtype(router.config, dtype)
    name = config.data_type.short
    if name not in dtypes:
        raise RequestError(
            f"the model is {name}, and there are no figures for it on this chip",
            hint=f"Choose another with --dtype: {', '.join(dtypes)}.",
        )
    kind = checkpoint.quantization()
    counted = f"The checkpoint is quantised ({kind}), and counted in {name}: see --quantization."
    built = router.model_cls(MindIELLMConfig(config), None, backend="reference", kv_cache_dtype=kv_cache_dtype)
    return built, [counted] if kind else []
