# SPDX-License-Identifier: Apache-2.0
"""The standard tests by subject; `FamilyTests` has all of them."""
