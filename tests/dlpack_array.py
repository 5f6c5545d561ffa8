# SPDX-License-Identifier: Apache-2.0
"""An array of a library that atb_core does not know, which gives its memory by DLPack alone."""

from __future__ import annotations

from typing import Any

import torch


class ForeignArray:
    """An array over the memory of a tensor that has none of a tensor's other methods."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._tensor.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


class DeviceArray(ForeignArray):
    """An array in the memory of a CUDA device."""

    def __dlpack__(self, **arguments: Any) -> Any:
        raise BufferError("the array is on device cuda:0")

    def __dlpack_device__(self) -> Any:
        return (2, 0)
