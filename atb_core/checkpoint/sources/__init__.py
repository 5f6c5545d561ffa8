# SPDX-License-Identifier: Apache-2.0
"""Finds checkpoints: on the disk, on a hub, in packages."""
