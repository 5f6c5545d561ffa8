# SPDX-License-Identifier: Apache-2.0
"""Interfaces of a checkpoint: the model's files in one format, and the tensors among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atb_core.errors import ConfigError, WeightsError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import tokenizers
    from typing_extensions import Self

    from atb_core.graph.arrays import Array, HostArray
    from atb_core.graph.quantized import QuantizedRows


@dataclass(frozen=True)
class FormatRules:
    """Holds the differences between a family's checkpoints in another format, such as GGUF, and Hugging Face's.

    Attributes:
        permuted_qk: the rows of the q and k projections are stored for rotation of neighbouring pairs, and are put
            back for rotation of halves.
        names: further tensor names, the format's to Hugging Face's, both whole or both without `.weight` and `.bias`;
            `{}` stands for the layer's number on both sides, and a second one on the right for the number of an
            expert, where all experts of a layer are one tensor.
        config: entries of `config.json` that the format does not carry, for example an activation's name.
        metadata: further metadata that mean something to the family, names under that of the architecture (such as
            `"final_logit_softcapping"`) to keys of `config.json`. A file with others is refused.
        transforms: functions that turn a stored tensor, an array of numpy, into the checkpoint's, by Hugging Face name
            with `{}` for numbers, such as `{"model.layers.{}.input_layernorm.weight": lambda norm: norm - 1}`. They
            keep the shape.
    """

    permuted_qk: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Callable[[HostArray], Array]] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenizerParts:
    """Holds a checkpoint's tokenizer and the settings that belong to it.

    Attributes:
        backend: the tokenizer; it inserts a BOS itself where `bos_id` is `None`.
        eos_token_ids: tokens that end a text.
        special_tokens: texts of the special tokens by the names that chat templates use, such as `bos_token`.
        chat_templates: sources by name; `"default"` is the usual one.
        bos_id: token to put before plain text that does not begin with it.
        eos_id: token to put after plain text.
    """

    backend: tokenizers.Tokenizer
    eos_token_ids: frozenset[int] = frozenset()
    special_tokens: dict[str, str] = field(default_factory=dict)
    chat_templates: dict[str, str] = field(default_factory=dict)
    bos_id: int | None = None
    eos_id: int | None = None


class Checkpoint(ABC):
    """A model's files on this machine in one format.

    Nothing is read before it is asked for. `str` gives the name for messages.

    Args:
        path: the file or the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns the configuration, with the keys of a `config.json`.

        Raises:
            ConfigError: there is none, or it cannot be read.
            WeightsError: it is part of the weights' file, which is damaged.
        """

    @abstractmethod
    def generation_config(self) -> dict[str, Any]:
        """Returns the settings that the model's authors recommend, as in `generation_config.json`; empty without any.

        Raises:
            ConfigError: they cannot be read.
        """

    @abstractmethod
    def tokenizer_parts(self) -> TokenizerParts:
        """Reads the tokenizer and the chat templates.

        Raises:
            TokenizerError: there is no tokenizer, or it is damaged or of an unsupported kind.
        """

    @abstractmethod
    def weights(self, dtype: DataType | None = None) -> WeightLoader:
        """Opens the tensors and checks their structure.

        Args:
            dtype: element type in which a format with quantised types delivers its tensors; `None`: the one that
                `config` names. Formats of plain elements deliver them as stored.

        Raises:
            WeightsError: the files are damaged, incomplete or of a kind that is not supported.
        """

    def model_type(self, served: Iterable[str]) -> str:
        """Returns the `model_type` by which a family is found.

        Args:
            served: types that installed families serve, for formats that spell a type in another way.

        Raises:
            ConfigError: the configuration names none.
        """
        model_type = self.config().get("model_type")
        if not isinstance(model_type, str) or not model_type:
            raise ConfigError(
                f"The configuration of {self} names no model_type", hint="Is this the directory of a language model?"
            )
        return model_type

    def set_rules(self, rules: Mapping[str, FormatRules]) -> None:
        """Sets the rules of the family, by the name of the format; formats that need none ignore them."""
        return

    def stored_types(self) -> Counter[str]:
        """Returns the number of tensors in each element type, under the format's own names of the types."""
        with self.weights() as loader:
            return Counter(loader.dtype(name).short for name in loader.names())

    def quantization(self) -> str | None:
        """Returns the name of the quantisation method, `None` for plain elements."""
        declared = self.config().get("quantization_config")
        return str(declared.get("quant_method")) if isinstance(declared, dict) else None


class WeightLoader(ABC):
    """Reads tensors of one checkpoint by their Hugging Face names, whole or by slices.

    Opening validates the checkpoint's structure and allocates nothing in proportion to it. Every method that is
    given a name the checkpoint lacks raises `WeightsError`, as does any read that fails.
    """

    #: Name of the scheme in which a checkpoint of safetensors is quantised, `None` for plain elements.
    quantization: str | None = None
    #: Whether layers may take activations as integers, where the checkpoint says so.
    keeps_integers = False

    @property
    @abstractmethod
    def source(self) -> str:
        """The checkpoint's name in messages: a path."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Returns all tensor names, in the order in which reading them is cheapest (the order on disk)."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of the tensor that `get` returns."""

    @abstractmethod
    def dtype(self, name: str) -> DataType:
        """Returns the element type of the tensor that `get` returns."""

    @abstractmethod
    def nbytes(self, name: str) -> int:
        """Returns the bytes that the tensor occupies in the file: the unit of progress."""

    @abstractmethod
    def get(self, name: str) -> Array:
        """Reads the whole tensor into fresh, contiguous memory of the host that the caller owns."""

    def read_into(self, name: str, out: HostArray) -> None:
        """Reads the whole tensor into an array of its shape, in the array's element type."""
        import numpy as np

        from atb_core.graph.arrays import to_numpy

        # Numbers that are too large become infinite, as in torch.
        with np.errstate(over="ignore"):
            out[...] = to_numpy(self.get(name))

    @abstractmethod
    def get_slice(self, name: str, dim: int, start: int, stop: int) -> Array:
        """Reads `get(name).narrow(dim, start, stop - start)` into fresh contiguous memory, and no more than needed."""

    def blocks(self, name: str, formats: Collection[str]) -> QuantizedRows | None:
        """Reads a quantised matrix as it is stored, if `get` returns the same numbers and its format is in `formats`.

        Returns:
            `None` for any other tensor, without reading it.
        """
        return None

    def linear_method(self, prefixes: Sequence[str], dtype: DataType) -> Any:
        """Returns the `layers.linear.LinearMethod` of a layer with the matrices `prefixes` in a model of `dtype`.

        The loader then delivers the tensors that the method's parameters name. `None`: the matrices are floats.
        """
        return None

    def unlisted(self) -> frozenset[str]:
        """Returns the names that the checkpoint's index leaves out, which a model need not know."""
        return frozenset()

    def identity(self) -> list[list[int]]:
        """Returns numbers of each file that its system changes with the content; nothing if they are not known."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Closes the files. Tensors already returned stay valid. Closing twice is fine."""

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def unknown(self, name: str) -> WeightsError:
        """Returns the error for a name that is not in the checkpoint; it names the closest ones that are."""
        close = get_close_matches(name, self.names(), n=3, cutoff=0.8)
        hint = f"The closest names it has: {', '.join(close)}." if close else None
        return WeightsError(f"{self.source} has no tensor {name!r}", hint)


def end_token_ids(*configs: Mapping[str, Any]) -> frozenset[int]:
    """Returns the tokens that end a text, by the first of the configurations that names any."""
    for config in configs:
        value = config.get("eos_token_id")
        listed = value if isinstance(value, list) else [value]
        ids = frozenset(item for item in listed if type(item) is int and item >= 0)
        if ids:
            return ids
    return frozenset()
