# SPDX-License-Identifier: Apache-2.0
"""Generation from prompts: scheduling, paged cache, sampling, tokenizers and the `ModelRunner`."""
