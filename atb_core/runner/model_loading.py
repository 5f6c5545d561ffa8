# SPDX-License-Identifier: Apache-2.0
"""Builds a model and loads its weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

from atb_core.engine import get_backend
from atb_core.errors import BackendUnavailableError, RequestError
from atb_core.models.families import families
from atb_core.names import BACKENDS, DTYPES, GRAPHS, HOST_BACKENDS

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.checkpoint.progress import Progress
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM
    from atb_core.models.base.router import BaseRouter

__all__ = ["check_available", "config_with_dtype", "load_model"]


def check_available(backend: str, graph: str, rank: int, world_size: int) -> None:
    """Refuses what this version cannot do, before any file is opened.

    Raises:
        BackendUnavailableError: more than one process, a backend that this machine does not have, or a graph that
            the backend cannot run.
        RequestError: a value that means nothing.
    """
    if world_size != 1 or rank != 0:
        if world_size < 1 or not 0 <= rank < world_size:
            raise RequestError(f"rank={rank} and world_size={world_size} do not go together")
        raise BackendUnavailableError(
            f"world_size={world_size}: tensor parallel is not available in this version",
            hint="Run with world_size=1, one process for the whole model.",
        )
    if graph not in GRAPHS:
        raise RequestError(f"graph must be 'python' or 'cpp', not {graph!r}")
    if graph == "cpp" and backend == "reference":
        raise BackendUnavailableError(
            "graph='cpp': backend='reference' interprets graphs that Python records, and none that C++ builds",
            hint="Use backend='cpu', or graph='python'.",
        )
    if backend not in ("auto", *BACKENDS):
        raise RequestError(f"backend must be 'auto' or one of {', '.join(map(repr, BACKENDS))}, not {backend!r}")
    if backend not in ("auto", *HOST_BACKENDS):
        get_backend(backend)  # says what is missing


def config_with_dtype(config: BaseConfig, dtype: str) -> BaseConfig:
    """The configuration for running in another element type than the checkpoint's (``"auto"``).

    Raises:
        RequestError: ``dtype`` is not one that models run in.
    """
    if dtype == "auto":
        return config
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise RequestError(f"dtype must be 'auto' or one of {', '.join(DTYPES)}, not {dtype!r}")
    return config.replace(torch_dtype=name)


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
    progress: Progress | None,
) -> CausalLM:
    """Builds the family's model for ``config`` and streams its weights into the engine.

    Args:
        graph: who writes the graphs, ``"python"`` or ``"cpp"``.
        max_model_len: the longest sequence that will be run, in tokens.
        features: names of features that the model shall have.

    Raises:
        RequestError: there is no such feature.
        BackendUnavailableError: there is no C++ graph of this model; says why.
        WeightsError: the checkpoint is damaged or does not fit the configuration.
    """
    from atb_core.models.base.mindie_llm_config import MindIELLMConfig

    built = get_backend(backend, **({} if num_threads is None else {"num_threads": num_threads}))
    built.check_model(config.data_type, config.head_dim or 0)
    cpp_name = _cpp_name(router.model_type, config) if graph == "cpp" else None
    with checkpoint.weights(config.data_type) as loader:
        model = router.model_cls(
            MindIELLMConfig(hf_config=config),
            loader,
            backend=built,
            max_model_len=max_model_len,
            **({"features": tuple(features)} if features else {}),
        )
        if cpp_name is not None:
            from atb_core.models.cpp.graph_variants import CppVariants

            model.variants = CppVariants(model, cpp_name)
        model.load_weights(loader, progress=progress)
    _return_free_memory()
    return model


def _cpp_name(model_type: str, config: BaseConfig) -> str:
    """The C++ model that the family registers for its models of this type."""
    from atb_core.models.base.moe_config import MoeConfig
    from atb_core.models.cpp.registration import registrations

    registered = registrations().model_of_family(model_type)
    if registered is not None:
        return registered[0]
    package = families().package_for(model_type)
    experts = ": a mixture of experts is only written in Python" if isinstance(config, MoeConfig) else ""
    raise BackendUnavailableError(
        f"graph='cpp': {package} has no C++ graph for models of type {model_type!r}{experts}",
        hint="Use graph='python'.",
    )


def _return_free_memory() -> None:
    """Gives freed loading buffers back to the system: glibc keeps those between live blocks (12 MB of a 0.5B model)."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
