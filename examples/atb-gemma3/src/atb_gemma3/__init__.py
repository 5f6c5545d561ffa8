# SPDX-License-Identifier: Apache-2.0
"""Gemma 2 and 3 models for atb_core."""
