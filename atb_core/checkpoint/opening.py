# SPDX-License-Identifier: Apache-2.0
"""Opens a checkpoint: selects the source and the format."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from atb_core.checkpoint.base import Checkpoint, FormatRules, WeightLoader
from atb_core.checkpoint.directory import DirectoryCheckpoint
from atb_core.checkpoint.formats import (
    CHECKPOINT_FORMATS,
    claimant,
    custom_checkpoint,
    file_suffixes,
    files_of_model,
    read_by,
    refuse_without_package,
)
from atb_core.checkpoint.progress import Progress
from atb_core.checkpoint.sources.base import SOURCES, Source, StoredModel
from atb_core.errors import ConfigError, ModelNotFoundError, RequestError, WeightsError, error_text
from atb_core.files import read_json, user_path
from atb_core.graph.dtype import DataType
from atb_core.plugin_errors import plugin_errors
from atb_core.settings import model_reference

_log = logging.getLogger(__name__)

_SAFETENSORS = ".safetensors"
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
_LOCAL_FORM = "a directory, a .gguf file (with the package atb-gguf)"


def open_checkpoint(reference: str | Path, progress: Progress | None = None) -> Checkpoint:
    """Finds a checkpoint, and fetches it if it is not on this machine. Reads neither configuration nor weights.

    Args:
        reference: a directory, a .gguf file, a form of a plugin's source, such as `OWNER/NAME[@REVISION]`, or
            an alias of the settings. A name that exists on the disk is a path.
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


def with_revision(reference: str | Path, revision: str | None) -> str | Path:
    """Returns a reference to a branch, tag or commit of what `reference`, or the alias of the settings, names.

    Without a revision it is the reference itself.

    Raises:
        RequestError: it is on the disk, has a revision already, or is an address, which has its own place for one.
    """
    if revision is None:
        return reference
    reference = model_reference(str(reference))
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


@plugin_errors()
def open_weights(
    path: str | Path, rules: Mapping[str, FormatRules] | None = None, dtype: DataType | None = None
) -> WeightLoader:
    """Opens the tensors of a checkpoint on the disk and checks their structure.

    Args:
        path: a directory with safetensors (one file, or shards with an index), a .safetensors file, or a path of a
            plugin's format.
        rules: differences between the family's checkpoints in plugins' formats and Hugging Face's, by the format.
        dtype: element type in which formats with quantised types deliver tensors; `None`: that of the configuration.
            Safetensors are delivered as stored.

    Raises:
        ModelNotFoundError: there is nothing at `path`.
        WeightsError: the checkpoint is damaged, incomplete or of a kind that is not supported.
    """
    checkpoint = checkpoint_at(Path(path))
    checkpoint.set_rules(rules or {})
    return checkpoint.weights(dtype)


def checkpoint_at(path: Path) -> Checkpoint:
    """Returns the checkpoint at a path: a directory, a .safetensors file, or a path of a plugin's format.

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
    custom = custom_checkpoint(path)
    if custom is not None or is_directory:
        return custom or DirectoryCheckpoint(path)
    if suffix in _PICKLES:
        raise WeightsError(
            f"{path} is a pickle file, which can run code when it is loaded and is never opened here",
            "Convert it to safetensors first.",
        )
    refuse_without_package(str(path))
    raise WeightsError(
        f"{path} is not a checkpoint that can be opened",
        f"The formats are {', '.join(('model directories with .safetensors files', *CHECKPOINT_FORMATS.offered()))}.",
    )


def _checkpoint_in(path: Path) -> Checkpoint:
    """Returns the only checkpoint in a directory or below it; a file is the checkpoint itself."""
    if not path.is_dir():
        return checkpoint_at(path)
    suffixes = file_suffixes()
    if (path / "config.json").exists():
        beside = sorted(file.name for file in path.iterdir() if file.suffix.lower() in suffixes)
        safetensors = any(path.glob(f"*{_SAFETENSORS}"))
        if safetensors and beside:
            _log.warning("%s holds its weights twice: the safetensors are read, %s is not", path, beside[0])
        if safetensors or not beside:
            return checkpoint_at(path)
    configs = sorted(config.parent for config in path.rglob("config.json") if config.parent != path)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
    # The parts of a split model are one, which the first of them stands for.
    models = [
        *configs,
        *dict.fromkeys(first if (first := files_of_model(file)[0]) in files else file for file in files),
    ]
    if len(models) == 1:
        return checkpoint_at(models[0])
    if models:
        listed = ", ".join(str(model.relative_to(path)) for model in models[:5])
        raise ModelNotFoundError(
            f"{path} contains {len(models)} models: {listed}", "Pass the path of the one you want."
        )
    _refuse_adapter(path)
    if any(path.glob(f"*{_SAFETENSORS}")) or (checkpoint := custom_checkpoint(path)) is None:
        raise ModelNotFoundError(
            f"{path} contains neither a config.json nor a model file ({', '.join(sorted(suffixes))})",
            "Pass the directory of a model, or its file.",
        )
    return checkpoint


def _fetch(reference: str, progress: Progress | None) -> Path:
    subject = repr(reference[:200])
    contribution = claimant(SOURCES, lambda source: not source.last and source.claims(reference), subject)
    contribution = contribution or claimant(SOURCES, lambda source: source.claims(reference), subject)
    if contribution is not None:
        fetch = contribution.value.fetch
        return read_by(contribution, reference, ModelNotFoundError, Path, fetch, reference, progress)  # type: ignore[no-any-return]
    if missing := SOURCES.missing(reference, f"{subject} is fetched by the package", ModelNotFoundError):
        raise missing
    forms = ", ".join((_LOCAL_FORM, *(each.value.form for each in SOURCES.all())))
    raise ModelNotFoundError(f"there is no model {subject}", f"A model is {forms}.{SOURCES.failures()}")


def stored_models() -> list[tuple[Source, StoredModel]]:
    """Returns the models that the sources keep on this machine, each with its source.

    A source whose cache cannot be read is left out with a warning; a plugin's that fails otherwise is recorded, too.
    """
    found: list[tuple[Source, StoredModel]] = []
    for each in SOURCES.all():
        with SOURCES.left_out_if_failing(each.owner, f"{each.value}, asked what it keeps"):
            try:
                found += [(each.value, model) for model in each.value.stored()]
            except OSError as error:  # no fault of the plugin
                _log.warning("what %s keeps on this machine is left out: %s", each.value, error_text(error))
    return sorted(found, key=lambda item: item[1].reference)


def _refuse_adapter(path: Path) -> None:
    """Raises ModelNotFoundError for the directory of an adapter, with the name of its model."""
    adapter = read_json(path / "adapter_config.json", ConfigError)
    if adapter is None:
        return
    base = adapter.get("base_model_name_or_path")
    named = f"{base!r:.300}" if isinstance(base, str) and base else "a model that it does not name"
    raise ModelNotFoundError(
        f"{path} is an adapter (PEFT) and no model; it belongs to {named}",
        f"Open that model with --lora NAME={path}, or with ModelRunner(..., lora_modules=...).",
    )
