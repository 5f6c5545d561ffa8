# SPDX-License-Identifier: Apache-2.0
"""Divides a model among processes of one machine."""

from atb_parallel.leader import start_group

__all__ = ["start_group"]
