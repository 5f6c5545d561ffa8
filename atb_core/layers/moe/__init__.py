# SPDX-License-Identifier: Apache-2.0
"""Feed-forward layers of which each token uses a part."""
