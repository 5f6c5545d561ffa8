# SPDX-License-Identifier: Apache-2.0
"""The extension point for quantised checkpoints: directories whose tensors are integers, scales and zero points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.checkpoint.base import WeightLoader
from atb_core.checkpoint.formats import read_by
from atb_core.errors import ConfigError, PluginError, WeightsError
from atb_core.extensions import Extensions
from atb_core.files import read_json
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    from atb_core.checkpoint.safetensors import SafetensorsLoader

#: The name of the schemes that `quant_model_description*.json` describes.
MSMODELSLIM = "msmodelslim"
_DESCRIPTION = "quant_model_description*.json"
_MAX_DESCRIPTION_BYTES = 100_000_000


@dataclass(frozen=True)
class QuantScheme:
    """A way in which the matrices of a checkpoint are quantised.

    Attributes:
        name: `quant_method` of `quantization_config` in `config.json`, such as `"gptq"`.
        open: takes the stored tensors, the settings (`quantization_config`, or the description of msModelSlim) and the
            floating type to deliver. Returns a loader that delivers the tensors of the unquantised checkpoint, matrices
            in blocks of the engine where `WeightLoader.blocks` can, and that has this name as its `quantization`.
            Raises `WeightsError` for settings with a meaning that it does not implement.
    """

    name: str
    open: Callable[[SafetensorsLoader, Mapping[str, Any], DataType], WeightLoader]

    def __str__(self) -> str:
        return f"the quantisation scheme {self.name!r}"


QUANT_SCHEMES: Extensions[QuantScheme] = Extensions("atb_quant_schemes", QuantScheme, name="name")


def declared_quantization(directory: Path, config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Returns the name and the settings of the scheme that a checkpoint declares, `None` for plain elements.

    Raises:
        ConfigError: the declaration cannot be read, or there are several.
    """
    declared = config.get("quantization_config")
    if declared is not None:
        method = declared.get("quant_method") if isinstance(declared, dict) else None
        if not isinstance(method, str) or not method:
            raise ConfigError(f"quantization_config of {directory} names no quant_method: {str(declared)[:100]}")
        return method, declared
    found = sorted(directory.glob(_DESCRIPTION))
    if len(found) > 1:
        raise ConfigError(f"{directory} describes its quantisation in {len(found)} files, {found[0].name} among them")
    if not found:
        return None
    return MSMODELSLIM, read_json(found[0], ConfigError, _MAX_DESCRIPTION_BYTES) or {}


def open_quantized(
    stored: SafetensorsLoader, method: str, settings: Mapping[str, Any], dtype: DataType
) -> WeightLoader:
    """Returns the loader of the scheme `method`, which delivers `dtype`.

    Raises:
        WeightsError: no installed package knows the scheme, or it refuses the checkpoint.
    """
    what = f"the quantisation scheme {method[:100]!r} of {stored.source}"
    found = QUANT_SCHEMES.required(method, what, WeightsError, instead=" Or use the model's unquantised checkpoint.")
    given = found.value.open, stored, settings, dtype
    loader: WeightLoader = read_by(found, stored.source, WeightsError, WeightLoader, *given)
    if loader.quantization != method:
        raise PluginError(f"{found.value} of {found.owner} opened a loader of {loader.quantization!r}")
    return loader
