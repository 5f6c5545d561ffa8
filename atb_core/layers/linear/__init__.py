# SPDX-License-Identifier: Apache-2.0
"""Linear layers."""

import atb_core.layers.linear.linear as _linear
from atb_core.layers.linear.linear import *

__all__ = [*_linear.__all__]
