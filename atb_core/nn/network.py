# SPDX-License-Identifier: Apache-2.0
"""Networks and engines under the import path that models written for ATB-Models use."""

from atb_core.engine.base import Engine
from atb_core.graph.network import Network

__all__ = ["Engine", "Network"]
