# SPDX-License-Identifier: Apache-2.0
"""Places that checkpoints come from."""
