# SPDX-License-Identifier: Apache-2.0
"""Re-exports networks and engines under the import path of ATB-Models."""

from atb_core.engine.base import Engine
from atb_core.graph.network import Network

__all__ = ["Engine", "Network"]
