# SPDX-License-Identifier: Apache-2.0
"""Re-exports the current network under the import path of ATB-Models."""

from atb_core.graph.network import get_default_net

__all__ = ["get_default_net"]
