# SPDX-License-Identifier: Apache-2.0
"""Functions of ATB-Models that few models use, for atb_core."""
