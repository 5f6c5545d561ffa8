# SPDX-License-Identifier: Apache-2.0
"""Checks a device: every op, a tiny model of every family, harmless faults and a benchmark, in one file to send."""
