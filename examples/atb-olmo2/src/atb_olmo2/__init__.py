# SPDX-License-Identifier: Apache-2.0
"""Olmo2 models for atb_core."""
