# SPDX-License-Identifier: Apache-2.0
"""Models on the Hugging Face hub, for atb_core."""
