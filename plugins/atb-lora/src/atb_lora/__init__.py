# SPDX-License-Identifier: Apache-2.0
"""LoRA for atb_core: adapters in PEFT's format that run on top of a model, one or several in a step."""
