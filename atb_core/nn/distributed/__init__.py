# SPDX-License-Identifier: Apache-2.0
"""Communication among the processes that serve one model."""

import atb_core.nn.distributed.distributed as _distributed
from atb_core.nn.distributed.distributed import *

__all__ = [*_distributed.__all__]
