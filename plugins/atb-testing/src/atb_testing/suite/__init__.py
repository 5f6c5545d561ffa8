# SPDX-License-Identifier: Apache-2.0
"""The standard tests, by what they are about; `FamilyTests` is all of them."""
