# SPDX-License-Identifier: Apache-2.0
"""Quantised checkpoints, for atb_core."""
