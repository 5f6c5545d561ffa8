# SPDX-License-Identifier: Apache-2.0
"""A model's recorded graphs with the sizes of a workload: what each node has to do, and what memory it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from atb_cli.graph_page.lifetimes import lifetimes
from atb_core.errors import RequestError
from atb_core.graph import Network, Node
from atb_core.graph.passes import run_passes
from atb_core.layers.linear import RowParallelLinear
from atb_core.models.runtime.weight_loading import collect_parameters, matrices_to_quantize
from atb_profile.costs import PRODUCTS, Cost, cost_of, softmax_share

if TYPE_CHECKING:
    from atb_core.models.base.flash_causal_lm_v3 import CausalLM

BLOCK_SIZE = 128
# Elements of a group of `int4`, with a scale and an offset; sizes that aclnn's product of integers takes.
_GROUP, _LARGEST = 32, 65535
# What a rank does for its own heads or columns alone; norms, sums and lookups are done by each for all.
_DIVIDED = PRODUCTS | {"SelfAttention", "PagedAttention", "Rope", "ReshapeAndCache", "Activation", "Split"}


class Work(NamedTuple):
    """Counts what a node has to do on one rank.

    Attributes:
        op: name of the op.
        module: path of the module that recorded it.
        cost: operations and bytes.
        vector: those of `cost.flops` that are not additions and multiplications of a matrix product.
    """

    op: str
    module: str
    cost: Cost
    vector: int = 0


@dataclass(frozen=True)
class Phase:
    """One kind of step.

    Attributes:
        name: `prefill` or `decode`.
        tokens: new tokens of all sequences.
        work: what each node has to do.
        unknown: names of ops without a cost.
        sent: bytes that a rank sends to others.
        peak: bytes of the values that are alive at the same time, at most.
    """

    name: str
    tokens: int
    work: Sequence[Work]
    unknown: frozenset[str]
    sent: int
    peak: int

    @property
    def flops(self) -> int:
        """Returns the operations of all nodes."""
        return sum(each.cost.flops for each in self.work)

    @property
    def nbytes(self) -> int:
        """Returns the bytes of all nodes."""
        return sum(each.cost.bytes for each in self.work)


class Workload:
    """A model without weights, divided among ranks.

    Args:
        model: the model.
        ranks: number of chips that share it.
        backend: engine whose graphs it has, after that engine's passes.
        quantization: `int8` or `int4`, which matrices of linears become where the engine can multiply by them; `None`:
            all have the model's dtype.

    Raises:
        RequestError: the model's heads or columns cannot be divided by `ranks`.
    """

    def __init__(self, model: CausalLM, ranks: int = 1, backend: str = "atb", quantization: str | None = None) -> None:
        self._model, self.ranks, self._backend, self.quantization = model, ranks, backend, quantization
        self.itemsize = model.dtype.itemsize
        heads = {status.num_heads for status in model.layer_status}
        sizes = [("columns of the MLP", model.config.intermediate_size)]
        sizes += [("attention heads", each) for each in sorted(heads)]
        for name, size in sizes:
            if size and size % ranks:
                possible = [str(each) for each in range(2, 65) if not any(s and s % each for _, s in sizes)]
                raise RequestError(
                    f"{size} {name} cannot be divided among {ranks} ranks",
                    hint=f"This model can be divided among {', '.join(possible) or 'no'} ranks.",
                )

    @cached_property
    def weight_bytes(self) -> int:
        """Returns the bytes of the weights of one rank, with parts of matrices and tables, all others whole."""
        network = self._network("decode")
        divided, saved = _product_weights(network), self._saved(network)
        total = 0
        for parameter in collect_parameters([self._model]):
            count = prod(parameter.declared_shape or ()) * self.itemsize - saved.get(parameter.name, 0)
            is_table = "embed" in parameter.name
            is_divided = self.divides_tables if is_table else parameter.name in divided
            # A table that is also a matrix is divided once by columns and once by rows.
            copies = 2 if is_table and is_divided and parameter.name in divided else 1
            total += count * copies // self.ranks if is_divided else count
        return total

    @property
    def divides_tables(self) -> bool:
        """Returns true if ranks divide the embedding by columns and the matrix of logits by the vocabulary."""
        config = self._model.config
        return self.ranks > 1 and not (config.vocab_size % self.ranks or config.hidden_size % self.ranks)

    @property
    def kv_bytes_per_token(self) -> int:
        """Returns the bytes of keys and values of one token on one rank; a head is not divided."""
        tensors = [tensor for spec in self._model.kv_cache_specs for tensor in spec.tensors]
        heads = [-(-tensor.num_heads // min(self.ranks, tensor.num_heads)) for tensor in tensors]
        return sum(replace(t, num_heads=count).bytes_per_token for t, count in zip(tensors, heads, strict=True))

    def decode(self, batch: int, context: int) -> Phase:
        """Returns a step in which `batch` sequences of `context` tokens, the new one included, get one more."""
        values = {"input_lengths": [context] * batch}
        return self._phase("decode", batch, batch, context, values)

    def prefill(self, prompt: int) -> Phase:
        """Returns the step of one prompt of `prompt` tokens."""
        return self._phase("prefill", prompt, 1, prompt, {"input_lengths": [prompt]})

    def _network(self, phase: str) -> Network:
        return run_passes(self._model.variants.network(frozenset({phase})), self._backend)

    def _phase(self, name: str, tokens: int, batch: int, context: int, values: Mapping[str, Sequence[int]]) -> Phase:
        network = self._network(name)
        blocks = -(-context // BLOCK_SIZE)
        sizes = {
            "tokens": tokens, "batch": batch, "rows": batch, "positions": context, "max_blocks": blocks,
            "blocks": batch * blocks, "block_size": BLOCK_SIZE,
        }  # fmt: skip
        saved = self._saved(network)
        work, unknown = [], set()
        for node in network.nodes:
            cost = cost_of(node, sizes, values)
            if cost is None:
                unknown.add(node.op.name)
                continue
            share = self.ranks if node.op.name in _DIVIDED else 1
            less = sum(saved.get(tensor.name or "", 0) for tensor in node.inputs) if node.op.name in PRODUCTS else 0
            cost = Cost(cost.flops // share, max(0, cost.bytes - less) // share)
            vector = _vector_flops(node, cost)
            work.append(Work(node.op.name, node.module_path, cost, vector))
        return Phase(name, tokens, work, frozenset(unknown), self._sent(tokens, batch), _peak(network, sizes))

    def _saved(self, network: Network) -> dict[str, int]:
        """Returns the bytes by which weights are smaller than in the model's dtype."""
        if self.quantization is None:
            return {}
        saved = {}
        for name in matrices_to_quantize(collect_parameters([self._model]), network):
            tensor = network.input(name)
            n, k = (size for size in tensor.shape or () if isinstance(size, int))
            if self._backend == "atb" and not _fits_call(network, name, n, k):
                continue
            integers, groups = (n * k, n) if self.quantization == "int8" else (n * k // 2, n * -(-k // _GROUP))
            saved[name] = n * k * self.itemsize - integers - groups * (2 if self.quantization == "int8" else 4)
        return saved

    def _sent(self, tokens: int, rows: int) -> int:
        """Counts the bytes of ring reductions, one after each product that is divided by inputs, and of table rows."""
        reductions = sum(isinstance(module, RowParallelLinear) for module in self._model.modules())
        hidden = reductions * tokens * self._model.config.hidden_size * self.itemsize * 2
        config = self._model.config
        gathered = (
            (rows * config.vocab_size + tokens * config.hidden_size) * self.itemsize if self.divides_tables else 0
        )
        return (hidden + gathered) * (self.ranks - 1) // self.ranks


def _vector_flops(node: Node, cost: Cost) -> int:
    if node.op.name in PRODUCTS | {"Lora"}:
        return 0
    if node.op.name in ("SelfAttention", "PagedAttention"):
        return round(cost.flops * softmax_share(node))
    return cost.flops


def _fits_call(network: Network, name: str, n: int, k: int) -> bool:
    """Tells if Ascend's product takes a matrix as integers; others, and those of which rows are read, stay floats."""
    readers = {node.op.name for node in network.nodes if network.input(name) in node.inputs}
    return readers == {"Linear"} and max(n, k) <= _LARGEST


def _product_weights(network: Network) -> set[str]:
    return {
        tensor.name
        for node in network.nodes
        if node.op.name in PRODUCTS
        for tensor in node.inputs
        if tensor.name is not None and len(tensor.shape or ()) >= 2
    }


def _peak(network: Network, sizes: Mapping[str, int]) -> int:
    """Returns the bytes of intermediate values that are alive at a time, at most; views share memory."""
    change = [0] * (len(network.nodes) + 2)
    for value in lifetimes(network, [sizes]):
        size = max(0, value.bytes[0])
        change[value.first] += size
        change[value.last + 1] -= size
    return max(accumulate(change))
