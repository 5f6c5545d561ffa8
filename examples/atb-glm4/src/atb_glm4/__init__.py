# SPDX-License-Identifier: Apache-2.0
"""GLM-4 models for atb_core."""
