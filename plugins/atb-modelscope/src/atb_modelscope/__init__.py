# SPDX-License-Identifier: Apache-2.0
"""Models on ModelScope, for atb_core."""
