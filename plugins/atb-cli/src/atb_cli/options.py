# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, for loading a model and for choosing tokens."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import click.shell_completion

from atb_core.errors import RequestError, TokenizerError
from atb_core.names import BACKENDS, DTYPES, GRAPHS, KV_CACHE_DTYPES, QUANTIZATIONS
from atb_core.runner.sampling_params import SamplingParams
from atb_core.settings import DEFAULT_MODEL, settings

if TYPE_CHECKING:
    from atb_core import ModelRunner, StreamChunk

Command = TypeVar("Command", bound=Callable[..., Any])
_REVISION = "atb_core.revision"

# Options that are arguments of `ModelRunner`.
_LOADING = (
    "backend", "graph", "dtype", "quantization", "cache_packed", "num_threads", "max_model_len",
    "kv_cache_memory_bytes", "generation_config", "features", "chat_template", "speculative_config", "lora_modules",
    "max_loras", "max_lora_rank", "tensor_parallel_size", "kv_cache_dtype",
)  # fmt: skip


class _Model(click.ParamType[str]):
    """The name of a model; completed as a path, which most are."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses an empty name."""
        if not value.strip():
            self.fail("it is empty; give a directory, a .gguf file, a hub id, or pypi:PACKAGE", param, ctx)
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Lets the shell complete paths."""
        return [click.shell_completion.CompletionItem(incomplete, type="file")]


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuses NaN, which is in every range, and infinity."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not finite.")
    return value


class BackendName(click.Choice[str]):
    """The name of a backend: help lists those of this project, and those of plugins are taken, too."""

    def __init__(self, *others: str) -> None:
        super().__init__((*others, *BACKENDS))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuses the names that nobody has."""
        from atb_core.engine import MAKERS

        is_known = value in self.choices or any(value == each.value.name for each in MAKERS.all())
        return str(value) if is_known else super().convert(value, param, ctx)


class OutputFile(click.Path):
    """A file to write, whose folder has to be there before the work begins."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses a file in no folder, and what is no path."""
        if not value or "\0" in str(value):
            self.fail(f"{str(value)!r} is no path.", param, ctx)
        path = super().convert(value, param, ctx)
        if not Path(os.fsdecode(path)).absolute().parent.is_dir():
            self.fail(f"{str(path)!r} is in no folder: make it first.", param, ctx)
        return path


def _or_default(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None and DEFAULT_MODEL not in settings().models:
        raise click.MissingParameter(ctx=ctx, param=param)
    value = DEFAULT_MODEL if value is None else value
    if (revision := ctx.meta.get(_REVISION)) is None:
        return value
    from atb_core.checkpoint.opening import with_revision

    return str(with_revision(value, revision))


def _keep_revision(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    ctx.meta[_REVISION] = value


def _speculative_config(ctx: click.Context, param: click.Parameter, value: bool) -> dict[str, Any] | None:
    return {"method": "ngram"} if value else None


def _lora_modules(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str] | None:
    """Parses `NAME=DIRECTORY`."""
    modules: dict[str, str] = {}
    for text in value:
        name, _, path = text.partition("=")
        if not name or not path:
            raise click.BadParameter(f"{text!r}: write NAME=DIRECTORY, for example sql=adapters/sql")
        if name in modules:
            raise click.BadParameter(f"the name {name} is given twice")
        modules[name] = path
    return modules or None


def _group(ctx: click.Context, param: click.Parameter, value: int) -> int:
    """Runs this process as one of a group, until rank 0 ends it, if a launcher has started it as another rank."""
    rank, world_size = launched()
    if rank and not ctx.resilient_parsing:
        from atb_core.distributions import needed_package

        needed_package("atb_parallel", "a group of processes needs").follow(rank, world_size)
        ctx.exit()
    return value


def launched() -> tuple[int, int]:
    """Returns rank and number of the processes that a launcher such as torchrun has started; 0 and 1 without one.

    Raises:
        RequestError: Variables of the launcher are no numbers, or do not go together.
    """
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    rank, world_size, *place = (os.environ.get(name) for name in names)
    if rank is None or world_size is None or None in place:
        return 0, 1
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
        raise RequestError(
            f"the environment has RANK={rank[:20]} and WORLD_SIZE={world_size[:20]}: rank is a number below it",
            hint="torchrun sets them; unset them for a process of its own.",
        )
    return int(rank), int(world_size)


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Returns a decorator that adds options to a command in their order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


# MODEL may be left out where the settings name a default. The value that a command gets includes the revision.
model_argument = _options(
    click.argument("model", type=_Model(), metavar="MODEL", required=False, callback=_or_default),
    click.option("--revision", expose_value=False, is_eager=True, callback=_keep_revision, metavar="REVISION",
                 help="Branch, tag or commit of a model on a hub; the same as MODEL@REVISION."),
)  # fmt: skip

kv_cache_dtype_option = click.option(
    "--kv-cache-dtype", type=click.Choice(KV_CACHE_DTYPES), default="auto", show_default=True,
    help="Type of keys and values in the cache: auto is the model's; int8 takes half of the memory.",
)  # fmt: skip

model_options = _options(
    click.option("--backend", type=BackendName("auto"), default="auto", show_default=True,
                 help="What runs the graphs: the C++ engine, the slow reference in torch, an Ascend device (atb), or a"
                 " simulator of one."),
    click.option("--graph", type=click.Choice(GRAPHS),
                 help="Who writes the graphs: the family's Python, or C++ where the family has such a model (needs"
                 " atb-cpp-models)."
                 " [default: engine.graph of the settings file, else python]"),
    click.option("--dtype", type=click.Choice(("auto", *DTYPES)), default="auto", show_default=True,
                 help="Precision of weights and activations; auto takes the checkpoint's."),
    click.option("--quantization", type=click.Choice(QUANTIZATIONS),
                 help="Quantise the weights on loading. [default: as the checkpoint has them]"),
    kv_cache_dtype_option,
    click.option("--cache-packed/--no-cache-packed", default=None,
                 help="Keep packed weights on the disk, from where the next process maps them (`atb cache`)."
                 " [default: engine.cache_packed of the settings, else no]"),
    click.option("--num-threads", type=click.IntRange(min=1), metavar="N",
                 help="Threads of the engine. [default: ATB_NUM_THREADS, OMP_NUM_THREADS or all cores]"),
    click.option("--tp", "--tensor-parallel-size", "tensor_parallel_size", type=click.IntRange(min=1), default=1,
                 show_default=True, metavar="N", callback=_group,
                 help="Processes that share the model (tensor parallel), which are started, but for those of torchrun."
                 " Needs atb-parallel."),
    click.option("--max-model-len", type=click.IntRange(min=1), metavar="N",
                 help="Longest prompt plus answer, in tokens; sizes the KV cache."),
    click.option("--kv-cache-memory-bytes", type=click.IntRange(min=1), metavar="BYTES",
                 help="Size of the KV cache. [default: enough for 16 contexts, at most half of the free memory]"),
    click.option("--generation-config", default="auto", show_default=True, metavar="auto|none|PATH",
                 help="Where sampling defaults come from: the model's generation_config.json, nowhere, or a file."),
    click.option("--feature", "features", multiple=True, metavar="NAME",
                 help="Put a feature on the model, of its family or of a plugin; may be given again."),
    click.option("--lora", "lora_modules", multiple=True, callback=_lora_modules, metavar="NAME=DIRECTORY",
                 help="Load a LoRA adapter in PEFT's format."),
    click.option("--max-loras", type=click.IntRange(min=1), default=8, show_default=True, metavar="N",
                 help="Most adapters in one step."),
    click.option("--max-lora-rank", type=click.IntRange(min=1), default=64, show_default=True, metavar="N",
                 help="Largest rank of an adapter."),
    click.option("--speculate", "speculative_config", is_flag=True, callback=_speculative_config,
                 help="Guess tokens from the text so far and check several at a time; the answers are the same. Faster"
                 " for text that repeats itself, such as code. Needs atb-speculation."),
)  # fmt: skip

chat_options = _options(
    click.option("--chat-template", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                 help="Use this Jinja template instead of the model's, which `atb show --template` prints."),
    click.option("--thinking/--no-thinking", default=None,
                 help="Let the model think before it answers, or not, where its family has a switch for it."),
    click.option("--chat-template-kwarg", "chat_template_kwargs", multiple=True, metavar="NAME=VALUE",
                 help="Give the chat template a variable, as JSON or else as text; may be given again."),
)  # fmt: skip

sampling_options = _options(
    click.option("--max-tokens", type=click.IntRange(min=1), metavar="N",
                 help="Most tokens to generate. [default: the generation config's, else 512]"),
    click.option("--min-tokens", type=click.IntRange(min=0), metavar="N",
                 help="Fewest tokens to generate. [default: the generation config's, else 0]"),
    click.option("--temperature", type=click.FloatRange(min=0.0), metavar="T",
                 help="0 takes the most probable token. [default: the generation config's, else 0; 1 with another"
                 " sampling option]"),
    click.option("--top-p", type=click.FloatRange(0.0, 1.0, min_open=True), metavar="P",
                 help="Keep the most probable tokens that together have probability P. [default: the generation"
                 " config's, else 1]"),
    click.option("--top-k", type=click.IntRange(min=0), metavar="K",
                 help="Keep the K most probable tokens; 0 keeps all. [default: the generation config's, else 0]"),
    click.option("--min-p", type=click.FloatRange(0.0, 1.0), metavar="P",
                 help="Keep tokens at least P times as probable as the most probable one. [default: the generation"
                 " config's, else 0]"),
    click.option("--repetition-penalty", type=click.FloatRange(min=0.0, min_open=True), metavar="R",
                 help="Above 1, tokens of prompt and answer become less probable. [default: the generation config's,"
                 " else 1]"),
    click.option("--presence-penalty", type=click.FloatRange(-2.0, 2.0), metavar="X",
                 help="Subtracted from the logits of tokens of the answer so far. [default: 0]"),
    click.option("--frequency-penalty", type=click.FloatRange(-2.0, 2.0), metavar="X",
                 help="The same for each time that the token occurs. [default: 0]"),
    click.option("--logit-bias", multiple=True, metavar="ID=BIAS",
                 help="Add BIAS, from -100 to 100, to the logit of token ID; may be given again."),
    click.option("--seed", type=int, metavar="N", help="Makes sampling repeatable."),
    click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text; may be given again."),
    click.option("--stop-token-id", "stop_token_ids", type=click.IntRange(min=0), multiple=True, metavar="ID",
                 help="Stop at this token; may be given again."),
    click.option("--ignore-eos", is_flag=True, help="Go on after the model's end tokens."),
    click.option("--keep-special-tokens", is_flag=True, help="Leave special tokens in the text."),
)  # fmt: skip


@dataclasses.dataclass
class Session:
    """An open model with what the options say of its chats."""

    runner: ModelRunner
    sampling: SamplingParams
    template_kwargs: dict[str, Any]
    load_seconds: float
    adapter: str | None = None

    def check_chats(self) -> None:
        """Raises TokenizerError if the model has no chat template."""
        if self.runner.tokenizer is not None and not self.runner.tokenizer.has_chat_template:
            raise TokenizerError(
                "this model has no chat template: it was not made for conversations",
                hint="`atb run --raw` continues a text; --chat-template FILE gives the model a template.",
            )

    def chat(self, messages: list[dict[str, str]]) -> Iterator[StreamChunk]:
        """Starts the answer to a conversation."""
        return self.runner.chat(
            messages,
            self.sampling,
            stream=True,
            chat_template_kwargs=self.template_kwargs,
            adapter_ids=self.adapter,
        )


def open_session(model: str, thinking: bool | None, chat_template_kwargs: tuple[str, ...], **options: Any) -> Session:
    """Opens `model` by the values of all options of this module; what is wrong with them is said before it is loaded.

    Raises:
        UsageError: An option is no `NAME=VALUE` or `ID=BIAS`, or a template variable is given twice.
        RequestError: A value is refused, or `thinking` is given and the family of `model` has no switch for it.
    """
    loading = {name: options.pop(name) for name in _LOADING}
    adapters = loading["lora_modules"] or {}
    if len(adapters) > 1:
        raise click.UsageError(f"an answer has one adapter, and --lora names {', '.join(adapters)}")
    values = _sampling_values(**options)
    variables = _template_kwargs(model, thinking, chat_template_kwargs)
    started = time.monotonic()
    runner = load_runner(model, **loading)
    seconds = time.monotonic() - started
    if variables and runner.tokenizer is not None:
        runner.tokenizer.check_chat_template_kwargs(variables)
    sampling = dataclasses.replace(runner.get_default_sampling_params(), **values)
    return Session(runner, sampling, variables, seconds, next(iter(adapters), None))


def load_runner(model: str, **loading: Any) -> ModelRunner:
    """Opens `model`."""
    from atb_core import ModelRunner

    # A command without the option for a group is one process for each of a launcher's.
    world_size = launched()[1] if "tensor_parallel_size" in loading else 1
    return ModelRunner(model, world_size=world_size, **loading)


def _template_kwargs(model: str, thinking: bool | None, assignments: tuple[str, ...]) -> dict[str, Any]:
    """Translates the options of `chat_options` into `chat_template_kwargs`; reads the configuration of `model`."""
    pairs = [_assignment(text) for text in assignments]
    if thinking is not None:
        pairs.append((_thinking_variable(model, "--thinking" if thinking else "--no-thinking"), thinking))
    variables: dict[str, Any] = {}
    for name, value in pairs:
        if name in variables:
            raise click.UsageError(f"the template variable {name} is given twice")
        variables[name] = value
    return variables


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--chat-template-kwarg {text}: write NAME=VALUE, for example date_string=today")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _thinking_variable(model: str, option: str) -> str:
    from atb_core.checkpoint import open_checkpoint
    from atb_core.models.base.router import router_of

    router = router_of(open_checkpoint(model))
    if router.thinking_variable is None:
        raise RequestError(
            f"{option}: models of type {router.model_type!r} have no switch for thinking",
            hint="Leave it out; what else a chat template knows is set with --chat-template-kwarg NAME=VALUE.",
        )
    return router.thinking_variable


def _sampling_values(*, ignore_eos: bool, keep_special_tokens: bool, **options: Any) -> dict[str, Any]:
    """Translates the options of `sampling_options` that were given into arguments of `SamplingParams`."""
    options["logit_bias"] = dict(_bias(text) for text in options["logit_bias"])
    values = {name: value for name, value in options.items() if value not in (None, (), {})}
    if ignore_eos:
        values["ignore_eos"] = True
    if keep_special_tokens:
        values["skip_special_tokens"] = False
    # A wrong value is refused before a model is loaded.
    SamplingParams(**{"max_tokens": None, **values})
    return values


def _bias(text: str) -> tuple[int, float]:
    token_id, _, bias = text.partition("=")
    try:
        return int(token_id), float(bias)
    except ValueError:
        raise click.UsageError(f"--logit-bias {text}: write ID=BIAS, for example 42=-100") from None
