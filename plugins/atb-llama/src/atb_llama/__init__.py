# SPDX-License-Identifier: Apache-2.0
"""Llama and models of the same architecture for atb_core."""
