# SPDX-License-Identifier: Apache-2.0
"""Holds what is measured: our engine, and other programs that are installed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from checkpoints import write_w8a8

from atb_core import ModelRunner
from atb_profile.bench.runs import Ours, Prompts, Subject, Times

Tokens: TypeAlias = npt.NDArray[np.int64]


def ours(directory: Path, threads: int, max_model_len: int, quantization: str | None = None) -> Ours:
    """Returns our engine; "w8a8" is a checkpoint of its own."""
    stored = quantization == "w8a8"
    return Ours(
        ModelRunner(
            str(write_w8a8(directory) if stored else directory),
            dtype="auto" if stored else "bfloat16",
            num_threads=threads,
            quantization=None if stored else quantization,
            load_tokenizer=False,
            max_model_len=max_model_len,
            enable_prefix_caching=False,
        )
    )


class Transformers:
    """transformers' `model(...)` in bfloat16, eager, with a dynamic cache: less overhead than `generate`."""

    def __init__(self, directory: Path, threads: int, max_model_len: int) -> None:
        from transformers import AutoModelForCausalLM

        from atb_testing.conformance import cache_argument

        torch.set_num_threads(threads)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
        self.cache = cache_argument(self.model)

    @torch.inference_mode()
    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run."""
        start = time.perf_counter()
        out = self.model(torch.tensor(prompts), use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        first = time.perf_counter() - start
        for _ in range(max_tokens - 1):
            out = self.model(token, use_cache=True, **{self.cache: getattr(out, self.cache)})
            token = out.logits[:, -1].argmax(-1, keepdim=True)
        return Times(first, time.perf_counter() - start)


class OpenVino:
    """OpenVINO's stateful model, as `LLMPipeline` of OpenVINO GenAI runs it, in bfloat16 where the processor has it.

    `optimum-cli` of optimum-intel writes the model; that can be another environment than this one.
    """

    def __init__(self, directory: Path, threads: int, max_model_len: int) -> None:
        import openvino

        folder = directory / "openvino"
        if not (folder / "openvino_model.xml").exists():
            command = (
                f"optimum-cli export openvino --task text-generation-with-past --weight-format fp16 --model {directory}"
            )
            raise SystemExit(f"{folder} has no model of OpenVINO. Write it (package optimum-intel): {command} {folder}")
        core = openvino.Core()
        model = core.read_model(folder / "openvino_model.xml")
        _keep_last_logits(model)
        self.request = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads}).create_infer_request()

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run."""
        self.request.reset_state()
        start = time.perf_counter()
        token = self._next(np.array(prompts), 0)
        first = time.perf_counter() - start
        for computed in range(len(prompts[0]), len(prompts[0]) + max_tokens - 1):
            token = self._next(token, computed)
        return Times(first, time.perf_counter() - start)

    def _next(self, tokens: Tokens, computed: int) -> Tokens:
        """Returns the most probable token behind those of each sequence, of which so many are in the cache already."""
        count, length = tokens.shape
        inputs = {
            "input_ids": tokens,
            "attention_mask": np.ones((count, computed + length), np.int64),
            "position_ids": np.broadcast_to(np.arange(computed, computed + length), tokens.shape),
            "beam_idx": np.arange(count, dtype=np.int32),
        }
        self.request.infer(inputs)
        found: Tokens = self.request.get_tensor("logits").data[:, -1].argmax(-1)[:, None]
        return found


class Vllm:
    """vLLM's CPU backend in bfloat16, compiled, as its `LLM` runs it: in a process of its own, bound to processors."""

    def __init__(self, directory: Path, threads: int, max_model_len: int) -> None:
        processors = sorted(os.sched_getaffinity(0))[:threads]
        # This process has threads, so that the other one must not be forked from it.
        os.environ["VLLM_WORKER_MULTIPROCESSING_METHOD"] = "spawn"
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, processors))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
        from vllm import LLM

        self.engine = LLM(
            str(directory),
            dtype="bfloat16",
            max_model_len=max_model_len,
            skip_tokenizer_init=True,
            enable_prefix_caching=False,
        ).llm_engine
        self.requests = 0

    def times(self, prompts: Prompts, max_tokens: int) -> Times:
        """Measures one run."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        start = first = time.perf_counter()
        waiting = set[str]()
        for prompt in prompts:
            self.requests += 1
            waiting.add(str(self.requests))
            self.engine.add_request(str(self.requests), {"prompt_token_ids": prompt}, params)
        while self.engine.has_unfinished_requests():
            came = {output.request_id for output in self.engine.step()}
            if waiting & came:
                waiting -= came
                first = time.perf_counter()
        return Times(first - start, time.perf_counter() - start)


def _keep_last_logits(model: Any) -> None:
    """Lets an OpenVINO model compute the logits of the last position alone, as OpenVINO GenAI does."""
    from openvino import opset13

    product = model.output("logits").get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    last = opset13.slice(product.input_value(0), [-1], [np.iinfo(np.int64).max], [1], [1])
    product.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


#: Other programs by name: the package that must be installed, and the class. "bfloat16" is our engine with the weights
#: as they are, for comparison with quantised ones.
PEERS: dict[str, tuple[str, Callable[[Path, int, int], Subject]]] = {
    "transformers": ("transformers", Transformers),
    "openvino": ("openvino", OpenVino),
    "vllm": ("vllm", Vllm),
    "bfloat16": ("atb_core", ours),
}


def installed_peers() -> list[str]:
    """Returns the names of the other programs whose packages are installed."""
    return [name for name, (package, kind) in PEERS.items() if kind is not ours and find_spec(package) is not None]
