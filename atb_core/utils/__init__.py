# SPDX-License-Identifier: Apache-2.0
"""Import paths of ATB-Models under `utils`; the project's own code imports from where things are."""
