# SPDX-License-Identifier: Apache-2.0
"""Normalization layers."""
