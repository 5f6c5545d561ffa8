# SPDX-License-Identifier: Apache-2.0
"""Builds the model and the tokenizer of a runner, and loads the weights."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from atb_core.distributions import needed_package
from atb_core.engine import get_backend
from atb_core.errors import RequestError, TokenizerError, WeightsError
from atb_core.files import read_text
from atb_core.models.base.mindie_llm_config import MindIELLMConfig
from atb_core.models.graph_builders import graph_builder
from atb_core.models.runtime.packed_weights import PackedWeights
from atb_core.names import DTYPES
from atb_core.nn.distributed.distributed import ProcessGroup
from atb_core.nn.distributed.mapping import Mapping
from atb_core.plugin_errors import plugin_errors
from atb_core.runner.chat_template import TEMPLATE_LIMIT
from atb_core.runner.tokenizer import Tokenizer

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint, WeightLoader
    from atb_core.checkpoint.progress import Progress
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.base.router import BaseRouter
    from atb_core.runner.kv_cache import PagedCache


class Group(ProcessGroup, Protocol):
    """The processes that share a model: each has a part of the layers."""

    failure: str | None

    def divide(
        self, model_cls: type[CausalLM], config: BaseConfig, loader: WeightLoader
    ) -> tuple[BaseConfig, WeightLoader]:
        """Returns the configuration of this process's part, and a loader that reads no other part."""

    def lead(self, model: CausalLM, cache: PagedCache) -> None:
        """Makes the other processes allocate such a cache and run every step of `model` on it, too."""

    def close(self) -> None:
        """Ends the other processes."""


def longest_context(max_model_len: int | None, context_len: int) -> int:
    """Returns the limit that was given, by default the model's; RequestError if it is more than that."""
    if max_model_len is not None and max_model_len > context_len:
        raise RequestError(
            f"max_model_len={max_model_len} is more than the {context_len} tokens the model is made for",
            hint="Lower max_model_len, or set rope_scaling in config.json.",
        )
    return max_model_len or context_len


def config_with_dtype(config: BaseConfig, dtype: str) -> BaseConfig:
    """Returns the configuration for running in another dtype than the checkpoint's (`"auto"`).

    Raises:
        RequestError: Models cannot run in `dtype`.
    """
    if (name := dtype.removeprefix("torch.")) not in ("auto", *DTYPES):
        raise RequestError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}, not {dtype!r}")
    return config if name == "auto" else config.replace(torch_dtype=name)


def open_tokenizer(
    router: BaseRouter, checkpoint: Checkpoint, path: str | Path | None = None, chat_template: str | Path | None = None
) -> Tokenizer:
    """Returns the tokenizer at `path` if it is given, else the family's own, else the checkpoint's.

    The file `chat_template`, if given, replaces its template.
    """
    own = router.tokenizer if path is None else Tokenizer.from_path(Path(path))
    if path is None and (router.input_builder is not None or hasattr(own, "backend_tokenizer")):
        own = needed_package("atb_ops", "A tokenizer of transformers needs").ported(own, router.input_builder)
    tokenizer = own or Tokenizer(checkpoint.tokenizer_parts())
    if chat_template is None:
        return tokenizer
    text = read_text(Path(chat_template), TEMPLATE_LIMIT, TokenizerError)
    if text is None:
        raise TokenizerError(f"chat_template: there is no file {chat_template}")
    return tokenizer.with_chat_template(text)


@plugin_errors()
def load_model(
    router: BaseRouter,
    checkpoint: Checkpoint,
    config: BaseConfig,
    *,
    backend: str,
    graph: str,
    num_threads: int | None,
    max_model_len: int,
    features: Sequence[str],
    quantization: str | None,
    keep_blocks: bool,
    kv_cache_dtype: str = "auto",
    packed_folder: str | None = None,
    progress: Progress | None,
    tensor_parallel_size: int = 1,
    world_size: int = 1,
    group: Group | None = None,
) -> CausalLM:
    """Builds the family's model for `config` and streams its weights into the engine.

    The arguments are those of `ModelRunner`, checked. Other processes of a group call it with that `group`.

    Raises:
        RequestError: There is no such feature.
        BackendUnavailableError: The chosen builder has no graph of this model.
        WeightsError: The checkpoint is damaged or does not fit the configuration.
    """
    num_threads, processes = _threads_of_each(num_threads, tensor_parallel_size), max(tensor_parallel_size, world_size)
    engines = get_backend(backend, **({} if num_threads is None else {"num_threads": num_threads}))
    for head_dim in sorted({(config.heads_of(i) or config).head_dim or 0 for i in range(config.num_hidden_layers)}):
        engines.check_model(config.data_type, head_dim)
    variants_of = None if graph == "python" else graph_builder(graph).prepare(router.model_type, config)
    same: Any = {"features": list(features), "kv_cache_dtype": kv_cache_dtype, "max_model_len": max_model_len}
    if group is None and processes > 1:
        opening = {
            **same, "backend": backend, "dtype": config.torch_dtype, "num_threads": num_threads,
            "quantization": quantization, "keep_blocks": keep_blocks, "packed_folder": packed_folder,
        }  # fmt: skip
        atb_parallel = needed_package("atb_parallel", "tensor_parallel_size needs")
        group = atb_parallel.start_group(processes, checkpoint, config, opening, launched=world_size > 1)
    with checkpoint.weights(config.data_type) as loader, ExitStack() as on_error:
        on_error.callback(lambda: None if group is None else group.close())
        _check_depth(config, loader)
        loader.keeps_integers = keep_blocks and quantization is None
        opened, mapping = loader, Mapping()
        if group is not None:
            mapping = Mapping(group.world_size, group.rank, group=group)
            config, loader = group.divide(router.model_cls, config, loader)
        model = router.model_cls(MindIELLMConfig(config, mapping=mapping), loader, backend=engines, **same)
        model.variants = model.variants if variants_of is None else variants_of(model)
        bits = {"quantization": quantization} if quantization else {"keep_blocks": True} if keep_blocks else {}
        choices = [config.torch_dtype, bits, list(features), graph, mapping.rank, mapping.world_size]
        sources, packed = (model, model.variants, opened, checkpoint), None  # who writes the graph declares the weights
        if packed_folder is not None:
            packed = PackedWeights(Path(packed_folder), model.backend.packed_layout, checkpoint, choices, sources)
        model.load_weights(loader, progress=progress, packed=packed, **bits)
        on_error.pop_all()
    _return_free_memory()
    return model


def _threads_of_each(num_threads: int | None, processes: int) -> int | None:
    """Returns the threads of each process: threads that wait for each other need a processor each."""
    chosen = num_threads is not None or not os.environ.keys().isdisjoint(("ATB_NUM_THREADS", "OMP_NUM_THREADS"))
    return num_threads if processes == 1 or chosen else max(1, len(os.sched_getaffinity(0)) // processes)


def _check_depth(config: BaseConfig, loader: WeightLoader) -> None:
    """Raises WeightsError before thousands of layers are built of a file that cannot hold them."""
    if config.num_hidden_layers > (tensors := len(loader.names())):
        raise WeightsError(
            f"{loader.source} has {tensors} tensors, fewer than num_hidden_layers = {config.num_hidden_layers}",
            hint="Check that config.json and the weights belong together and that every shard is there.",
        )


def _return_free_memory() -> None:
    """Gives freed loading buffers back to the system: glibc keeps those between live blocks (12 MB of a 0.5B model)."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
