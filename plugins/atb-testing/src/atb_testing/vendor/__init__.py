# SPDX-License-Identifier: Apache-2.0
"""Reads what the vendor's tools dump of ATB's operations."""
