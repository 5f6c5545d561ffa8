# SPDX-License-Identifier: Apache-2.0
"""Qwen3 for atb_core, dense and with a mixture of experts."""
