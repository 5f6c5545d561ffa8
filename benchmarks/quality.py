# SPDX-License-Identifier: Apache-2.0
"""Measures what quantisation costs: perplexity of texts, agreement of the most probable token, and divergence.

    python benchmarks/quality.py MODEL TEXT... --tokens 50000

Each way of loading MODEL reads the same windows of the texts; agreement and divergence are those to bfloat16.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch

from atb_core import ModelRunner
from atb_testing.driver import PagedDriver

WAYS: dict[str, dict[str, str]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "as stored": {},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
    "int8 cache": {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
}


def main() -> None:
    """Prints a line of JSON for each way of loading the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--tokens", type=int, default=50_000, help="most tokens to read")
    parser.add_argument("--window", type=int, default=512, help="tokens that are read at a time, without context")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    runners = {
        way: ModelRunner(options.model, backend="cpu", max_model_len=options.window, max_num_seqs=1, **WAYS[way])
        for way in dict.fromkeys(["bfloat16", *options.ways])
    }
    tokenizer = runners["bfloat16"].tokenizer
    assert tokenizer is not None
    ids = [token for text in options.texts for token in tokenizer.encode(text.read_text(encoding="utf-8"))]
    totals: dict[str, dict[str, float]] = {way: dict.fromkeys(("loss", "same", "divergence"), 0.0) for way in runners}
    count = 0
    for start in range(0, min(len(ids), options.tokens) - options.window + 1, options.window):
        count += _add(ids[start : start + options.window], runners, totals)
    if count == 0:
        parser.error(f"the texts have {len(ids)} tokens, fewer than one window")
    for way, total in totals.items():
        row = {
            "way": way,
            "weight_bytes": runners[way].model.variants.store.nbytes,
            "tokens": count,
            "perplexity": math.exp(total["loss"] / count),
            "same_top_1": total["same"] / count,
            "divergence": total["divergence"] / count,
        }
        print(json.dumps(row), flush=True)


def _add(window: list[int], runners: dict[str, Any], totals: dict[str, dict[str, float]]) -> int:
    """Adds the figures of a window to the sums; returns the number of predictions."""
    following = torch.tensor(window[1:])
    reference = None
    for way, runner in runners.items():
        logits = PagedDriver(runner.model, 1, max_len=len(window)).prefill([window])[:-1].float()
        scores = logits.log_softmax(-1)
        reference = scores if reference is None else reference
        totals[way]["loss"] -= scores.gather(1, following[:, None]).sum().item()
        totals[way]["same"] += (scores.argmax(-1) == reference.argmax(-1)).sum().item()
        totals[way]["divergence"] += (reference.exp() * (reference - scores)).sum().item()
    return len(following)


if __name__ == "__main__":
    main()
