# SPDX-License-Identifier: Apache-2.0
"""Checks the settings of schemes: what has a meaning and is not done here is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from atb_core.checkpoint.safetensors import SafetensorsLoader
from atb_core.errors import WeightsError


def refuse(stored: SafetensorsLoader, scheme: str, cause: str, hint: str | None = None) -> WeightsError:
    """Returns the error for a checkpoint of a scheme."""
    return WeightsError(
        f"{stored.source} is quantised by {scheme}, and {cause}",
        hint or "Use the model's unquantised checkpoint, or another one of those that docs/quantization.md lists.",
    )


def check_settings(
    stored: SafetensorsLoader,
    scheme: str,
    settings: Mapping[str, Any],
    read: Collection[str],
    meaningless: Collection[str] = (),
    only: Mapping[str, tuple[Any, ...]] | None = None,
) -> None:
    """Refuses settings that are not read and have a meaning.

    Args:
        stored: the checkpoint's tensors.
        scheme: its name in messages.
        settings: what the checkpoint says.
        read: keys that the scheme reads.
        meaningless: keys that change no value: how the checkpoint was made, or which kernels others run.
        only: keys of which we do some values, compared with `==`.
    """
    for key, value in settings.items():
        if only and key in only:
            if not any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in only[key]):
                known = ", ".join(map(repr, only[key]))
                raise refuse(stored, scheme, f"its {key} is {str(value)[:100]!r}, which is not supported ({known} is)")
        elif key not in read and key not in meaningless and value not in (None, False, [], {}, ""):
            raise refuse(stored, scheme, f"its setting {key[:100]!r} is unknown: {str(value)[:100]}")


def integer(stored: SafetensorsLoader, scheme: str, settings: Mapping[str, Any], key: str, allowed: str) -> int:
    """Returns a setting that is an integer; `allowed` describes it for the message."""
    value = settings.get(key)
    if type(value) is not int or abs(value) > 2**31:
        raise refuse(stored, scheme, f"its {key} is {str(value)[:100]!r}, not {allowed}")
    return value


def either(stored: SafetensorsLoader, scheme: str, settings: Mapping[str, Any], *names: str) -> str:
    """Returns which of two names a setting has, by default the second; refuses two values."""
    first, second = names
    if first in settings and settings.get(second, settings[first]) != settings[first]:
        raise refuse(
            stored, scheme, f"its {first} and {second} are {settings[first]!r:.50} and {settings[second]!r:.50}"
        )
    return first if first in settings else second


def need_order(stored: SafetensorsLoader, scheme: str, name: str, groups: int) -> None:
    """Raises `WeightsError` if the inputs were reordered and there is no tensor that says how."""
    if groups > 1 and name not in stored:
        raise refuse(stored, scheme, f"its inputs were reordered, and it has no tensor {name}")


def group_count(columns: int, size: int) -> int:
    """Returns the number of groups in a row; -1 is one group."""
    return 1 if size == -1 else -(-columns // size)


def need(stored: SafetensorsLoader, scheme: str, name: str, shape: tuple[int, ...], types: Collection[str]) -> None:
    """Raises `WeightsError` unless there is a tensor of that shape and one of those types.

    The file itself is whole, as its header was checked: what differs is mostly a layout that is not supported.
    """
    if name not in stored:
        raise refuse(stored, scheme, f"it has no tensor {name}")
    entry = stored.locate(name)
    if entry.shape != shape:
        raise refuse(stored, scheme, f"{name} has shape {list(entry.shape)}, and only {list(shape)} is supported")
    if entry.type not in types:
        raise refuse(stored, scheme, f"{name} has the type {entry.type}, and only {' or '.join(types)} is supported")


#: Types of scales.
FLOATS = ("F16", "BF16", "F32")
