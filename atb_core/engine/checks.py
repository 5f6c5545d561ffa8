# SPDX-License-Identifier: Apache-2.0
"""Checks of what callers pass to engines and backends: each raises EngineError, which names the argument."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Mapping, Sequence

import numpy as np

from atb_core.errors import EngineError
from atb_core.graph.arrays import Array, data_type, from_dlpack, is_tensor
from atb_core.graph.dim import Dim
from atb_core.graph.dtype import DataType
from atb_core.graph.network import Network
from atb_core.graph.tensor import Tensor

#: More bytes than any system gives; larger numbers do not fit into C++'s.
_MOST_BYTES = 2**62


def check_kind(what: str, value: object, kind: type) -> None:
    """Raises EngineError unless `value` is of the type `kind`."""
    if not isinstance(value, kind):
        name = "dict" if kind is Mapping else kind.__name__
        raise EngineError(f"{what} must be a {name}, not {type(value).__name__}")


def check_name(what: str, name: object) -> None:
    """Raises EngineError unless `name` is text that UTF-8 can encode."""
    check_kind(what, name, str)
    try:
        str(name).encode()
    except UnicodeEncodeError:
        raise EngineError(f"{what} is no text in UTF-8: {name!r}") from None


def check_integer(what: str, value: object, least: int, most: int = 2**31 - 1) -> None:
    """Raises EngineError unless `value` is an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise EngineError(f"{what} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        given = value if abs(value) < 2**64 else "one of many digits"
        raise EngineError(f"{what} must be an integer from {least} to {most}, not {given}")


def memory_size(what: str, shape: Sequence[int], dtype: object) -> int:
    """Returns the bytes of a tensor; raises EngineError for impossible sizes and dtypes that engines do not have."""
    check_kind(f"the shape of {what}", shape, Sequence)
    for axis, size in enumerate(shape):
        check_integer(f"dimension {axis} of {what}", size, 0, _MOST_BYTES)
    count = math.prod(shape) * check_dtype(what, dtype).itemsize
    if count > _MOST_BYTES:
        raise EngineError(f"{what} of shape {list(shape)} in {dtype} does not fit into any memory")
    return count


def check_dtype(what: str, dtype: object) -> DataType:
    """Returns the element type of a dtype of numpy or torch; raises EngineError if engines do not have it."""
    try:
        return data_type(dtype)
    except TypeError as error:
        raise EngineError(f"{what}: {error}") from None


def check_call(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None, runtime_params: Mapping[str, Array] | None
) -> tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]:
    """Returns the arguments of `Engine.forward`, empty dicts for `None`; checks that all are dicts.

    Inputs of other libraries become arrays over their memory. An output that is an input under the same name is written
    in place, and left out.
    """
    outputs = {} if outputs is None else outputs
    runtime_params = {} if runtime_params is None else runtime_params
    for what, values in (("inputs", inputs), ("outputs", outputs), ("runtime_params", runtime_params)):
        if type(values) is not dict:  # faster than asking an abstract class
            check_kind(what, values, Mapping)
    new = {n: value for n, value in outputs.items() if n not in inputs or inputs[n] is not value}
    # The types alone are compared first, as the steps of a runner have numpy's arrays only.
    if set(map(type, inputs.values())) - {np.ndarray}:
        inputs = {name: _as_array(name, value) for name, value in inputs.items()}
    return inputs, new, runtime_params


def _as_array(name: str, value: object) -> Array:
    try:
        return from_dlpack(value)
    except TypeError as error:
        raise EngineError(f"input {name!r} {error}") from None


def check_names(what: str, given: Collection[str], wanted: Collection[str], optional: bool = False) -> None:
    """Raises EngineError unless the given names are the wanted ones, or some of them if `optional`."""
    unknown = sorted(str(name) for name in set(given) - set(wanted))
    missing = [] if optional else sorted(set(wanted) - set(given))
    if unknown or missing:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise EngineError(
            f"the {what} do not fit the network; {'; '.join(parts)}",
            hint=f"{what} of this network: {', '.join(sorted(wanted)) or 'none'}",
        )


def check_weights_set(network: Network, store: Container[str]) -> None:
    """Raises EngineError unless the store has all weights of the network."""
    if missing := sorted(name for name in network.weights_keys if name not in store):
        raise EngineError(f"weights are missing: {', '.join(missing)}", hint="Call set_weights() first.")


def check_real(what: str, real: Array, device: str | None = None, contiguous: bool = True) -> DataType:
    """Returns the element type of `real`; raises EngineError unless it is a dense, contiguous array on `device`."""
    if isinstance(real, np.ndarray):
        dtype = check_dtype(what, real.dtype)
        if contiguous and not (real.flags.c_contiguous and real.flags.aligned):
            raise EngineError(f"{what} is not contiguous", hint="Pass numpy.ascontiguousarray(array).")
        if device not in (None, "cpu"):
            raise EngineError(f"{what} is on cpu, the engine runs on {device}")
        return dtype
    if not is_tensor(real):
        raise EngineError(f"{what} must be a torch.Tensor or a numpy array, not {type(real).__name__}")
    dtype = check_dtype(what, real.dtype)
    if str(real.layout) != "torch.strided" or real.is_nested:
        raise EngineError(f"{what} is sparse or nested ({real.layout})", hint="Pass tensor.to_dense().")
    # Its memory holds the values with the other sign.
    if real.is_neg():
        raise EngineError(f"{what} is a negative view of its memory", hint="Pass tensor.resolve_neg().")
    if contiguous and not real.is_contiguous():
        raise EngineError(f"{what} is not contiguous", hint="Pass tensor.contiguous().")
    if device is not None and real.device.type != device:
        raise EngineError(f"{what} is on {real.device}, the engine runs on {device}")
    return dtype


def check_written(what: str, real: Array) -> None:
    """Raises EngineError for an array that must not be written."""
    if isinstance(real, np.ndarray) and not real.flags.writeable:
        raise EngineError(f"{what} is read-only, and the engine writes it", hint="Pass a copy.")


def address_of(real: Array) -> int:
    """Returns the address of an array's first element."""
    return real.ctypes.data if isinstance(real, np.ndarray) else real.data_ptr()


def check_tensor(what: str, declared: Tensor, real: Array, device: str | None = None) -> None:
    """Raises EngineError unless `real` is contiguous, on `device`, and has the declared dtype and fixed sizes."""
    dtype = check_real(f"{what} {declared.name!r}", real, contiguous=False)
    if declared.dtype is not None and dtype is not declared.dtype:
        raise EngineError(f"{what} {declared.name!r} must be {declared.dtype.short}, not {real.dtype}")
    if declared.shape is not None:
        fits = len(declared.shape) == real.ndim and all(
            isinstance(size, Dim) or size == value for size, value in zip(declared.shape, real.shape, strict=True)
        )
        if not fits:
            raise EngineError(f"{what} {declared} was given a tensor of shape {list(real.shape)}")
    check_real(f"{what} {declared.name!r}", real, device)


def check_some(
    what: str, network: Network, values: Mapping[str, Array], wanted: Collection[str], device: str | None = None
) -> None:
    """Raises EngineError unless `values` are some of the `wanted` inputs and fit their declarations."""
    check_kind(f"{what}s", values, Mapping)
    check_names(f"{what}s", values, wanted, optional=True)
    for name, value in values.items():
        check_tensor(what, network.input(name), value, device)
        if what == "KV cache":
            check_written(f"{what} {name!r}", value)


def check_part(network: Network, name: str, begin: int, part: Array, device: str | None = None) -> tuple[int, ...]:
    """Returns the shape of weight `name`; raises EngineError unless `part` fits into it from row `begin` on."""
    check_name("the name of a weight", name)
    check_names("weights", [name], network.weights_keys, optional=True)
    check_integer(f"the first row of a part of weight {name!r}", begin, 0, _MOST_BYTES)
    check_real(f"a part of weight {name!r}", part, device)
    weight = network.input(name)
    if not weight.shape:
        raise EngineError(f"weight {name!r} has no declared shape to set parts of", hint="Use set_weights().")
    shape = tuple(int(size) for size in weight.shape)  # type: ignore[arg-type]
    check_tensor("a part of weight", Tensor(name, (*part.shape[:1], *shape[1:]), weight.dtype), part, device)
    if len(part) < 1 or begin + len(part) > shape[0]:
        raise EngineError(f"rows {begin} to {begin + len(part)} are no part of weight {weight}")
    return shape
