# SPDX-License-Identifier: Apache-2.0
"""Finds, for the values of a dump of ours, the tensors of a vendor's round that are the same.

No names are common to both, so a tensor's partner is found by its place: the decoder layer, the operation, the number
of elements, and the order among its like. msit matches dumps of ATB with those of torch in this way
(`OpMatchPolicyMapCount` in its `cmp_op_match.py`). Where the places do not agree in number, there is no partner.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from atb_testing.dump import DumpError
from atb_testing.vendor.rounds import Operation, Round

_LAYER = re.compile(r"(?:.*\.)?layers\.(\d+)(?=\.|$)")
#: Operations of ATB by our op, where the name is not ours.
_OPERATIONS = {"AddRmsNorm": "RmsNorm", "QuantLinear": "Linear", "BatchMatmul": "Linear"}
_BEFORE, _AFTER = "before", "after"

Key = tuple[str, str, int]


def partners_of(
    values: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], found: Round, variant: str
) -> dict[str, str]:
    """Returns the vendor's tensor of each value that has one, by key.

    Args:
        values: values of a step in order, as `dump.json` has them.
        sizes: number of elements of the values that were kept, by key.
        found: the vendor's round.
        variant: `prefill` or `decode`: of `Prefill_layer` and `Decoder_layer`, the other ones are left out.

    Raises:
        DumpError: the round has other layers.
    """
    kept = [value for value in values if value["key"] in sizes]
    layers = list(dict.fromkeys(layer for value in values if (layer := _layer(value["module"]))))
    sections = _sections(found, layers, variant)
    theirs: dict[Key, list[str]] = defaultdict(list)
    for section, operation in sections:
        for number, numel in _outputs(found, operation):
            kind = operation.names[-1].removesuffix("Operation")
            if operation.leaf:
                theirs[section, kind, numel].append(f"{operation.path}/outtensor{number}")
            if len(operation.ids) == 1:
                theirs[section, "(layer)", numel].append(f"{operation.path}/outtensor{number}")
    ours: dict[Key, list[str]] = defaultdict(list)
    for value, section in zip(kept, _sections_of_values(kept), strict=True):
        key, kind = value["key"], _OPERATIONS.get(value["op"], value["op"])
        ours[section, kind, sizes[key]].append(key)
        if section in value["leaves"]:
            ours[section, "(layer)", sizes[key]].append(key)
    pairs: dict[str, str] = {}
    # What an operation wrote says more than what left the layer, so it comes first.
    for place in sorted(ours, key=lambda place: place[1] == "(layer)"):
        if len(ours[place]) == len(theirs[place]):
            for key, partner in zip(ours[place], theirs[place], strict=True):
                pairs.setdefault(key, partner)
    return pairs


def _layer(module: str) -> str | None:
    match = _LAYER.match(module)
    return match and match[0]


def _sections_of_values(values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the layer of each value, or on which side of the layers it is."""
    side = _BEFORE
    for value in values:
        layer = _layer(value["module"])
        side = _AFTER if layer else side
        yield layer or side


def _outputs(found: Round, operation: Operation) -> Iterator[tuple[int, int]]:
    for number, path in sorted(operation.outputs.items()):
        file = found.header(path)
        if file is not None:
            yield number, file.numel


def _sections(found: Round, layers: Sequence[str], variant: str) -> Iterator[tuple[str, Operation]]:
    """Yields the operations with the layers that they belong to.

    A graph of this project has the name of its layer (`model_layers_3`). Of others, those that occur several times are
    the layers, as msit takes them.
    """
    other = "decoder" if variant == "prefill" else "prefill"
    operations = [each for each in found.operations if not each.names[0].lower().startswith(other)]
    if not operations:
        raise DumpError(f"{found.directory} has no operation of a {variant}", hint="--step chooses another step.")
    names = {number: name for each in operations for number, name in [(each.ids[0], each.names[0])]}
    by_name = {re.sub(r"[^A-Za-z0-9]", "_", layer): layer for layer in layers}
    section_of = {number: by_name[name] for number, name in names.items() if name in by_name}
    if section_of and set(section_of.values()) != set(layers):
        raise DumpError(
            f"{found.directory} has operations of {len(set(section_of.values()))} of {len(layers)} layers: "
            "equal layers share an operation, whose runs are saved as rounds",
            hint="Dump with ATB_OPERATION_EXECUTE_ASYNC=1, which gives each layer its own, and all layers.",
        )
    if not section_of:
        # Of a model of one layer, no name occurs twice.
        often = max(Counter(names.values()).items(), key=lambda item: (item[1], "layer" in item[0].lower()))[0]
        repeated = [number for number, name in names.items() if name == often]
        if len(repeated) != len(layers):
            raise DumpError(
                f"{found.directory} has {len(repeated)} operations {often!r:.80} for {len(layers)} layers",
                hint="Dump all layers of the same model, with the child operations (save_child).",
            )
        section_of = dict(zip(repeated, layers, strict=True))
    first = min(section_of)
    for operation in operations:
        number = operation.ids[0]
        yield section_of.get(number, _BEFORE if number < first else _AFTER), operation
