# SPDX-License-Identifier: Apache-2.0
"""Models: configurations, routers and the class that turns a recorded forward into one that runs."""

from atb_core.models.base.input_builder import TruncationSide

__all__ = ["TruncationSide"]
