# SPDX-License-Identifier: Apache-2.0
"""Import path of ATB-Models for weight loaders."""
