# SPDX-License-Identifier: Apache-2.0
"""Holds the Ascend backend of atb_core built against the simulator of ATB and ACL, for `backend="atb-sim"`."""
