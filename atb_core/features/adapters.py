# SPDX-License-Identifier: Apache-2.0
"""The place of adapters, which change a model's results per request: what a package that brings them implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol

from atb_core.distributions import of_distribution
from atb_core.errors import RequestError
from atb_core.extensions import Extensions
from atb_core.features.base import FeatureDecorator

if TYPE_CHECKING:
    from atb_core.checkpoint.base import Checkpoint
    from atb_core.graph.arrays import HostArray

__all__ = ["BASE_NAMES", "Adapter", "AdapterManager"]

#: Names that stand for the model without an adapter.
BASE_NAMES = (None, "base")


class Adapter(Protocol):
    """One version of an adapter. Requests hold it, so that it stays as it is until they have ended."""

    @property
    def digest(self) -> bytes:
        """Returns a key of what it computes: adapters with the same one have the same results."""


class AdapterManager(ABC):
    """Loads and unloads the adapters of one model.

    Args:
        model: a `CausalLM`.
        max_loras: the most adapters in one step.
        max_lora_rank: the largest rank of an adapter's matrices.
        checkpoint: of the model, for adapters that replace tensors of it.

    Attributes:
        adapters: the loaded adapters by name.
        max_loras, max_lora_rank: as given.
        is_grouped: true if the sequences of a step may have different adapters.
    """

    #: The features that run steps with adapters; every model has them.
    features: ClassVar[tuple[type[FeatureDecorator], ...]] = ()
    adapters: Mapping[str, Adapter]
    max_loras: int
    max_lora_rank: int
    is_grouped: bool

    def __init__(
        self, model: Any, max_loras: int = 8, max_lora_rank: int = 64, checkpoint: Checkpoint | None = None
    ) -> None:
        self.max_loras, self.max_lora_rank = max_loras, max_lora_rank

    @abstractmethod
    def load(self, name: str, path: str | Path, *, replace: bool = False) -> Adapter:
        """Reads an adapter and lets requests name it.

        Raises:
            RequestError: the name is taken, and `replace` is false, or is none.
            ConfigError, WeightsError: the adapter is damaged, is not supported, or does not fit the model.
        """

    @abstractmethod
    def unload(self, name: str) -> None:
        """Forgets an adapter; RequestError if there is none. Requests that run with it end as they would."""

    @abstractmethod
    def find(self, given: Any) -> Adapter | None:
        """Returns the adapter of a name, `None` for one of `BASE_NAMES`; RequestError for an unknown name."""

    def share(self, adapter: Any, rank: int) -> Mapping[str, HostArray]:
        """Returns what process `rank` of the model's group has of an adapter; RequestError if it cannot be divided."""
        raise RequestError(f"{type(self).__name__} has no adapters for models that several processes share")

    def take(self, share: Mapping[str, HostArray]) -> Adapter:
        """Returns an adapter of what `share` returned in the first process of the group."""
        raise NotImplementedError


class NoAdapters(AdapterManager):
    """Stands where no package brings adapters."""

    adapters: Mapping[str, Adapter] = MappingProxyType({})
    is_grouped = False

    def load(self, name: str, path: str | Path, *, replace: bool = False) -> NoReturn:
        """Raises RequestError, which names the package."""
        raise _missing(name)

    def unload(self, name: str) -> NoReturn:
        """Raises RequestError, which names the package."""
        raise _missing(name)

    def find(self, given: Any) -> None:
        """Returns `None` for one of `BASE_NAMES`; RequestError for all other names."""
        if given not in BASE_NAMES:
            raise _missing(given)


def _missing(name: object) -> RequestError:
    error = ADAPTERS.missing("", f"the adapter {name!r:.300} needs the package", RequestError)
    assert error is not None  # one package brings all names
    return error


ADAPTERS: Extensions[type[AdapterManager]] = Extensions("atb_adapters", AdapterManager, subclasses=True)


def adapter_manager() -> type[AdapterManager]:
    """Returns the installed kind of adapters, `NoAdapters` if there is none; PluginError if there are several."""
    contribution = ADAPTERS.only(lambda manager: True, "the management of adapters")
    return NoAdapters if contribution is None else contribution.value


#: Returns a feature of atb-lora, for modules at ATB-Models' import paths. Not by the hook: a family may be imported
#: while the hooks are being collected.
lora_feature = partial(of_distribution, "atb_lora.decorators")
