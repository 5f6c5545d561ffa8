# SPDX-License-Identifier: Apache-2.0
"""The current network under the import path that models written for ATB-Models use."""

from atb_core.graph.network import get_default_net

__all__ = ["get_default_net"]
