# SPDX-License-Identifier: Apache-2.0
"""Runs a recorded model on real tensors: variants, position tables, cache binding, weight loading."""
