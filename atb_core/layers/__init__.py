# SPDX-License-Identifier: Apache-2.0
"""Layers of decoder models: weights by checkpoint name, and how they are applied."""
