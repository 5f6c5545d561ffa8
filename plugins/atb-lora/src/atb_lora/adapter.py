# SPDX-License-Identifier: Apache-2.0
"""Adapters in memory: read from PEFT's directories and fitted to a model's linear layers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.errors import WeightsError
from atb_core.graph.arrays import HostArray, numpy_dtype
from atb_core.layers.linear import RowParallelLinear
from atb_lora.config import LoraConfig, read_lora_config

if TYPE_CHECKING:
    from atb_core.layers.linear import BaseLinear

WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MATRICES = {".lora_A.weight": "a", ".lora_B.weight": "b", ".bias": "bias", ".base_layer.bias": "bias"}
_SHOWN = 4
_versions = itertools.count(1)

#: Reads tensors of the base model's checkpoint by name.
BaseTensors = Callable[[Sequence[str]], Mapping[str, HostArray]]


@dataclass(frozen=True)
class Target:
    """A linear layer that adapters can have matrices for.

    Attributes:
        first: the number of its first matrix among those of all targets.
        shares: outputs of each matrix, and inputs, that each process has where several share the model; else empty.
    """

    linear: BaseLinear
    first: int
    shares: Sequence[tuple[Sequence[slice], slice]] = ()

    @property
    def sizes(self) -> list[int]:
        """Returns the columns of each of its matrices in this process."""
        return self.linear.out_sizes

    @property
    def k(self) -> int:
        """Returns the number of its inputs in this process."""
        assert self.linear.weight.declared_shape is not None
        return self.linear.weight.declared_shape[1]

    @property
    def whole(self) -> tuple[list[int], int]:
        """Returns columns and inputs in all processes together: what an adapter is for."""
        if not self.shares:
            return self.sizes, self.k
        outputs, inputs = self.shares[-1]
        return [each.stop for each in outputs], inputs.stop

    def share(self, part: Part, number: int, rank: int) -> Part:
        """Returns what process `rank` has of an adapter's matrices: it adds its products before the layer sums."""
        outputs, inputs = self.shares[rank]
        columns = outputs[number - self.first]
        added_elsewhere = rank > 0 and isinstance(self.linear, RowParallelLinear)
        bias = None if part.bias is None or added_elsewhere else part.bias[columns]
        return Part(part.a[:, inputs], part.b[:, columns], bias)

    def input_name(self, what: str) -> str:
        """Returns the name of an input of networks: "a", "b" or "bias"."""
        return f"lora.{self.linear.prefix}.{what}"


@dataclass
class Part:
    """Holds what an adapter has for one matrix: a `[r, k]`, b `[r, n]` with the scale in it, bias `[n]` to be added."""

    a: HostArray
    b: HostArray
    bias: HostArray | None = None

    @property
    def rank(self) -> int:
        """Returns r."""
        return len(self.a)


@dataclass(eq=False)
class Adapter:
    """One version of an adapter. Requests hold it, so that it stays as it is until they have ended.

    Attributes:
        name: what requests call it.
        path: its directory.
        parts: what it has for the matrices of the model, by their numbers.
        others: the same of the other processes that share the model, in their order.
        version: unique in the process.
    """

    name: str
    path: Path
    config: LoraConfig
    parts: Mapping[int, Part]
    others: Sequence[Mapping[int, Part]] = ()
    version: int = field(default_factory=lambda: next(_versions))

    @property
    def rank(self) -> int:
        """Returns the largest rank."""
        return max((part.rank for part in self.parts.values()), default=0)

    @cached_property
    def digest(self) -> bytes:
        """Returns a key of what it computes: adapters with the same one have the same results."""
        state = hashlib.blake2b(digest_size=20, person=b"atb adapter")
        everything = [each for parts in (self.parts, *self.others) for each in sorted(parts.items())]
        for number, part in everything:
            tensors = [part.a, part.b, *([] if part.bias is None else [part.bias])]
            state.update(repr([number, [(list(t.shape), str(t.dtype)) for t in tensors]]).encode())
            for tensor in tensors:
                state.update(tensor.tobytes())
        return state.digest()


def read_adapter(name: str, path: Path, targets: Sequence[Target], max_rank: int, base: BaseTensors | None) -> Adapter:
    """Reads a directory with `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        name: what requests call it.
        path: the directory.
        targets: the layers of the model that it is for.
        max_rank: the largest rank that is accepted.
        base: reads biases that the adapter replaces.

    Raises:
        ConfigError: its settings ask for what is not supported.
        WeightsError: its tensors are damaged, are not those that its settings name, or do not fit the model.
    """
    config = read_lora_config(path)
    if not (path / WEIGHTS_FILE).exists() and (path / "adapter_model.bin").exists():
        raise WeightsError(
            f"the adapter {path} has its weights as a pickle file, which can run code and is never opened here",
            hint="Save it again with PEFT's save_pretrained(..., safe_serialization=True).",
        )
    with SafetensorsLoader(path / WEIGHTS_FILE, [path / WEIGHTS_FILE]) as loader:
        modules = _modules(loader, config)
        places = _Places(targets)
        unknown = sorted(module for module in modules if not places.find(module))
        if unknown:
            raise _unfit(path, f"it is for {_listed(unknown)}, which the model has no linear layer for")
        reader = _Reader(path, loader, config, max_rank)
        parts: dict[int, Part] = {}
        for module, tensors in modules.items():
            found = reader.parts(module, tensors, places.find(module))
            if parts.keys() & found.keys():
                raise _unfit(path, f"{module[:120]} and another of its modules are for the same matrix")
            parts.update(found)
        _make_deltas(path, parts, targets, base)
    return Adapter(name, path, config, *_shared(parts, targets))


def _shared(parts: Mapping[int, Part], targets: Sequence[Target]) -> tuple[Mapping[int, Part], list[dict[int, Part]]]:
    """Returns what the first process has of an adapter, and what the others have."""
    target_of = {target.first + part: target for target in targets for part in range(len(target.sizes))}
    processes = len(targets[0].shares) if targets else 0
    own, *others = [
        {number: target_of[number].share(part, number, rank) for number, part in parts.items()}
        for rank in range(processes)
    ] or [dict(parts)]
    return own, others


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:120] for name in names[:_SHOWN]) + more


def _unfit(path: Path, why: str) -> WeightsError:
    return WeightsError(f"the adapter {path} cannot be used: {why}", hint="Check that it was trained on this model.")


def _modules(loader: SafetensorsLoader, config: LoraConfig) -> dict[str, dict[str, str]]:
    """Returns the names of the tensors of each module, by what they are."""
    modules: dict[str, dict[str, str]] = {}
    strange = []
    for tensor in loader.names():
        rest = tensor.removeprefix(_PREFIX)
        # The longest first: a bias of a layer that PEFT wrapped ends with both.
        suffix = max((end for end in _MATRICES if rest.endswith(end)), key=len, default=None)
        if suffix is None or rest == tensor:
            strange.append(tensor)
        else:
            modules.setdefault(rest.removesuffix(suffix), {})[_MATRICES[suffix]] = tensor
    if strange:
        raise _unfit(loader.path, f"{_listed(strange)} are no LoRA matrices of linear layers")
    for module, tensors in modules.items():
        if ("a" in tensors) != ("b" in tensors) or ("bias" in tensors and config.bias == "none"):
            raise _unfit(loader.path, f"{module[:120]} lacks one of lora_A and lora_B, or has a bias of its own")
        if "a" in tensors and (setting := config.excluded_by(module)) is not None:
            raise _unfit(loader.path, f"{module[:120]} has matrices, and it has none by {setting}")
    if not modules:
        raise _unfit(loader.path, "it has no tensors")
    return modules


class _Places:
    """Finds the matrices of a model by the names that adapters have for them."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._places: dict[str, list[tuple[Target, int]]] = {}
        for target in targets:
            parts = list(range(len(target.sizes)))
            for part, prefix in zip(parts, target.linear.prefixes, strict=True):
                self._places[prefix] = [(target, part)]
            if target.linear.packed is not None:
                self._places[target.linear.packed] = [(target, part) for part in parts]

    def find(self, module: str) -> list[tuple[Target, int]]:
        """Returns layers and numbers of their parts; a packed matrix has several."""
        return self._places.get(module) or self._places.get(f"model.{module}") or []


@dataclass(frozen=True)
class _Reader:
    path: Path
    loader: SafetensorsLoader
    config: LoraConfig
    max_rank: int

    def parts(self, module: str, tensors: Mapping[str, str], places: list[tuple[Target, int]]) -> dict[int, Part]:
        """Returns what the adapter has for the matrices of one module."""
        target = places[0][0]
        dtype = numpy_dtype(target.linear.config.data_type)
        sizes = [each.whole[0][part] for each, part in places]
        k, n = target.whole[1], sum(sizes)
        if "a" in tensors:
            rank = self.config.rank(module)
            if rank > self.max_rank:
                raise WeightsError(
                    f"the adapter {self.path} has rank {rank} for {module}; the limit is {self.max_rank}",
                    hint=f"Open the model with max_lora_rank={rank}.",
                )
            with np.errstate(over="ignore"):  # it is refused below
                a = self._tensor(tensors["a"], (rank, k)).astype(dtype)
                scale = np.float32(self.config.scale(module))
                b = (self._tensor(tensors["b"], (n, rank)).astype(np.float32) * scale).T.astype(dtype)
        else:
            a, b = np.zeros((1, k), dtype), np.zeros((1, n), dtype)
        bias = self._tensor(tensors["bias"], (n,)).astype(np.float32) if "bias" in tensors else None
        for what, array in (("lora_A", a), ("lora_B times its scale", b), ("bias", bias)):
            if array is not None and not np.isfinite(array).all():
                raise WeightsError(
                    f"the adapter {self.path} cannot be used: {what} of {module[:120]} has numbers that are not finite "
                    f"in {dtype.name}",
                    hint="The file is damaged, or its numbers are too large for the dtype that the model runs in.",
                )
        cuts = np.cumsum(sizes)[:-1]
        biases = [None] * len(places) if bias is None else np.split(bias, cuts)
        return {
            each.first + part: Part(a, np.ascontiguousarray(columns), own)
            for (each, part), columns, own in zip(places, np.split(b, cuts, axis=1), biases, strict=True)
        }

    def _tensor(self, name: str, shape: tuple[int, ...]) -> HostArray:
        if self.loader.shape(name) != shape:
            raise _unfit(self.path, f"{name[:200]} has shape {list(self.loader.shape(name))}, not {list(shape)}")
        if not self.loader.dtype(name).is_float:
            raise _unfit(self.path, f"{name[:200]} is of {self.loader.dtype(name).short}")
        return self.loader.get(name)


def _make_deltas(path: Path, parts: Mapping[int, Part], targets: Sequence[Target], base: BaseTensors | None) -> None:
    """Turns biases that replace those of the base model into what is to be added."""
    names = {
        target.first + part: f"{prefix}.bias"
        for target in targets
        for part, prefix in enumerate(target.linear.prefixes)
        if target.first + part in parts and parts[target.first + part].bias is not None
    }
    if not names:
        return
    plain = {t.first + part for t in targets if t.linear.bias is None for part in range(len(t.sizes))}
    without = [name for number, name in names.items() if number in plain]
    if without or base is None:
        raise _unfit(path, f"it replaces {_listed(without or list(names.values()))}, which the model does not have")
    stored = base(list(names.values()))
    for number, name in names.items():
        part = parts[number]
        assert part.bias is not None
        if stored[name].shape != part.bias.shape:
            raise _unfit(path, f"it replaces {name}, which has another size in the model")
        part.bias = (part.bias - stored[name].astype(np.float32)).astype(part.a.dtype)
