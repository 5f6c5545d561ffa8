# SPDX-License-Identifier: Apache-2.0
"""Models: configurations, routers and the class that turns a recorded forward into one that runs."""
