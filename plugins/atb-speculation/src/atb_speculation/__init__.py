# SPDX-License-Identifier: Apache-2.0
"""Guesses the next tokens of requests, for atb_core."""
