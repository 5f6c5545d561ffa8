# SPDX-License-Identifier: Apache-2.0
"""Interfaces of a checkpoint: the model's files in one format, and the tensors among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from atb_core.errors import ConfigError, WeightsError
from atb_core.graph.dtype import DataType

if TYPE_CHECKING:
    import tokenizers
    import torch
    from typing_extensions import Self

    from atb_core.checkpoint.rules import GgufRules

__all__ = ["Checkpoint", "TokenizerParts", "WeightLoader", "check_slice"]


@dataclass(frozen=True)
class TokenizerParts:
    """Holds everything that a checkpoint says about its tokenizer.

    Attributes:
        backend: the tokenizer itself; it inserts a BOS by itself where `bos_id` is `None`.
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

    Nothing is read before it is asked for, and only `weights` imports torch. `str` gives the name for messages.

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
            WeightsError: it is in the weights' file, which is damaged.
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
            dtype: element type in which the tensors of a format with quantised types are delivered; `None`: the one
                that `config` names. Formats that store plain elements deliver them as stored.

        Raises:
            WeightsError: the files are damaged, incomplete or of a kind that is not supported.
        """

    def model_type(self, known: Iterable[str]) -> str:
        """Returns the `model_type` by which a family is found.

        Args:
            known: types that installed families serve, for formats that spell a type in another way.

        Raises:
            ConfigError: the configuration names none.
        """
        model_type = self.config().get("model_type")
        if not isinstance(model_type, str) or not model_type:
            raise ConfigError(
                f"The configuration of {self} names no model_type", hint="Is this the directory of a language model?"
            )
        return model_type

    def set_rules(self, rules: GgufRules | None) -> None:
        """Sets the differences between the family's files of this format and its Hugging Face checkpoints.

        Formats without such differences ignore them.
        """
        return

    def stored_types(self) -> Counter[str]:
        """Returns how many tensors are stored in each element type, under the format's own names of the types."""
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

    @property
    @abstractmethod
    def source(self) -> str:
        """Names the checkpoint in messages: a path."""

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
    def get(self, name: str) -> torch.Tensor:
        """Reads the whole tensor into fresh, contiguous CPU memory that the caller owns."""

    @abstractmethod
    def get_slice(self, name: str, dim: int, start: int, stop: int) -> torch.Tensor:
        """Reads `get(name).narrow(dim, start, stop - start)` into fresh contiguous memory, and no more than needed."""

    @abstractmethod
    def close(self) -> None:
        """Closes the files. Tensors already returned stay valid. Closing twice is fine."""

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def unknown(self, name: str) -> WeightsError:
        """Returns the error for a name that is not in the checkpoint; it names the closest ones that are."""
        from difflib import get_close_matches

        close = get_close_matches(name, list(self.names()), n=3, cutoff=0.8)
        hint = f"The closest names it has: {', '.join(close)}." if close else None
        return WeightsError(f"{self.source} has no tensor {name!r}", hint)


def check_slice(source: str, name: str, shape: tuple[int, ...], dim: int, start: int, stop: int) -> None:
    """Raises `WeightsError` unless `[start, stop)` is a range of dimension `dim` of `shape`."""
    if not 0 <= dim < len(shape) or not 0 <= start <= stop <= shape[dim]:
        raise WeightsError(
            f"{source}: tensor {name!r} of shape {list(shape)} has no slice [{start}:{stop}] in dimension {dim}"
        )
