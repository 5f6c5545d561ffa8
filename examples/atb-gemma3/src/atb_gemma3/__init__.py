# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 models for atb_core."""
