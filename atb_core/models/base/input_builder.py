# SPDX-License-Identifier: Apache-2.0
"""`InputBuilder` of atb-ops, under the import path that routers written for ATB-Models use."""

from functools import partial

from atb_core.distributions import of_distribution

__getattr__ = partial(of_distribution, "atb_ops.input_builder")
