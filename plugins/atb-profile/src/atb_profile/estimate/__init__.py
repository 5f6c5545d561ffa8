# SPDX-License-Identifier: Apache-2.0
"""Estimates what a step of a model takes on a device, from its recorded graph and the device's published figures."""
