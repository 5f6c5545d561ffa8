# SPDX-License-Identifier: Apache-2.0
"""Defines what a family may claim beyond what every family must do."""

from __future__ import annotations

from enum import Enum


class Capability(Enum):
    """A property that only some families have. The kit tests those that a family claims and reports the others.

    Every family must run in float32 and bfloat16, from one file or several, with any sizes.
    """

    #: `tie_word_embeddings: true`: one matrix both embeds tokens and gives the logits.
    TIED_EMBEDDINGS = "tied embeddings"
    #: Fewer heads of keys and values than of queries: `num_key_value_heads` below `num_attention_heads`.
    GROUPED_QUERY = "grouped queries"
    #: `head_dim` in `config.json`, other than `hidden_size / num_attention_heads`.
    HEAD_DIM = "free head size"
    #: Rotary positions scaled as `rope_parameters` says: linear, dynamic, llama3 and yarn.
    ROPE_SCALING = "rope scaling"
    #: Runs in float16 too.
    FLOAT16 = "float16"
    #: Routes tokens to experts. The tiny checkpoints' random routers choose clearly, so that rounding flips no choice
    #: (`atb_testing.routing`), and a test checks that torch chooses the same experts in every type.
    EXPERTS = "experts"
    #: Has a chat template, which the test class sets as `chat_template` or through `tokenizer_directory`.
    CHAT_TEMPLATE = "chat template"
