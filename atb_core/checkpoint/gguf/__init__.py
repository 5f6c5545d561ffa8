# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints in GGUF."""
