# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in GGUF, for atb_core."""
