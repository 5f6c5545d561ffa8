# SPDX-License-Identifier: Apache-2.0
"""Embeds prompts with models of atb_core; `ModelRunner.embed` leads here."""

from atb_embed.embedder import Embedder

__all__ = ["Embedder"]
