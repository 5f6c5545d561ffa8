# SPDX-License-Identifier: Apache-2.0
"""What every model family builds on. Import from the modules; this package imports nothing by itself."""
