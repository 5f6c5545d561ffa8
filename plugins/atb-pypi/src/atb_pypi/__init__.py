# SPDX-License-Identifier: Apache-2.0
"""Models that Python packages ship, for atb_core."""
