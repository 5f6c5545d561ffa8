# SPDX-License-Identifier: Apache-2.0
"""The base classes of model families. Import from the modules; this package imports nothing by itself."""
