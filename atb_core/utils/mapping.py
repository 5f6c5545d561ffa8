# SPDX-License-Identifier: Apache-2.0
"""The rank of a process under the import path that models written for ATB-Models use."""

from atb_core.nn.distributed.mapping import Mapping, ParallelInfo

__all__ = ["Mapping", "ParallelInfo"]
