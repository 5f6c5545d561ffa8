# SPDX-License-Identifier: Apache-2.0
"""Measures models beside what the machine can do in the same minute: `atb bench`, and what `benchmarks/` shares."""
