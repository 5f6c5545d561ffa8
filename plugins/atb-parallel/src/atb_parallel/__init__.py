# SPDX-License-Identifier: Apache-2.0
"""Divides a model among processes, of one machine or of several."""

from atb_parallel.launched import follow
from atb_parallel.leader import start_group

__all__ = ["follow", "start_group"]
