# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers."""
