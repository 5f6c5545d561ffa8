# SPDX-License-Identifier: Apache-2.0
"""Measures what quantisation costs: perplexity of texts, agreement of the most probable token, and divergence.

    python benchmarks/quality.py MODEL TEXT... --tokens 50000
    python benchmarks/quality.py FILE.gguf TEXT... --ways "as stored" --against PATH/llama-perplexity
    python benchmarks/quality.py DIRECTORY TEXT... --ways w8a8

Each way of loading MODEL reads the same windows of the texts; agreement and divergence are those to bfloat16. With
`--against`, llama.cpp runs the same file over the same tokens first: then its figures and those to it stand there too,
and the second half of each window counts, because that is what its program measures. "w8a8" is a copy beside the
directory, rounded as `bench.py --quantization w8a8` does it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import write_w8a8

from atb_core import ModelRunner
from atb_testing.driver import PagedDriver

WAYS: dict[str, dict[str, str]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "as stored": {},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
    "int8 cache": {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
}
#: A way that is a checkpoint of its own.
W8A8 = "w8a8"
#: Name of the other program among the ways.
THEIRS = "llama.cpp"
# What its file begins with, and 16-bit elements of a row before those of tokens: scale and least value, as float32.
_MAGIC, _HEAD = b"_logits_", 4


class Base:
    """Holds what other scores of a window are compared with.

    Args:
        scores: logarithms of probabilities.
    """

    def __init__(self, scores: torch.Tensor) -> None:
        self.top = scores.argmax(-1)
        # llama.cpp's file has all small probabilities as one value, the least, which is none.
        self._chances = scores.exp().where(scores > scores.amin(-1, keepdim=True), 0)
        self._own = torch.linalg.vecdot(self._chances, scores)

    def divergence(self, scores: torch.Tensor) -> float:
        """Returns the sum of the divergences of all predictions."""
        return (self._own - torch.linalg.vecdot(self._chances, scores)).sum().item()


class Totals:
    """Sums of a way over predictions: the loss, and what is compared with each other way that is a base."""

    def __init__(self, bases: Sequence[str]) -> None:
        self.loss = 0.0
        self.same = dict.fromkeys(bases, 0)
        self.divergence = dict.fromkeys(bases, 0.0)

    def add(self, scores: torch.Tensor, following: torch.Tensor, bases: Mapping[str, Base]) -> None:
        """Adds the predictions of a window, logarithms of probabilities."""
        self.loss -= scores.gather(1, following[:, None]).sum().item()
        top = scores.argmax(-1)
        for name, base in bases.items():
            self.same[name] += int((top == base.top).sum())
            self.divergence[name] += base.divergence(scores)

    def figures(self, count: int) -> dict[str, Any]:
        """Returns means of `count` predictions."""
        return {
            "perplexity": math.exp(self.loss / count),
            "same_top_1": {name: same / count for name, same in self.same.items()},
            "divergence": {name: total / count for name, total in self.divergence.items()},
        }


class Theirs:
    """llama.cpp's run of a file: its perplexity and that one's error, its tokens, the logarithms of its probabilities.

    Args:
        program: path of `llama-perplexity`, and options for it.
        model: the GGUF file.
        text: the text, a file.
        tokens: most tokens to read.
        window: tokens of a window.
        folder: where it writes what it computes, two bytes for each token of the vocabulary and prediction.
    """

    def __init__(self, program: Sequence[str], model: str, text: Path, tokens: int, window: int, folder: Path) -> None:
        scores = folder / "scores"
        sizes = ["-c", str(window), "-b", str(window), "--chunks", str(tokens // window)]
        command = [*program, "-m", model, "-f", str(text), *sizes, "--kl-divergence-base", str(scores)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = re.search(r"Final estimate: PPL = ([\d.]+) \+/- ([\d.]+)", done.stdout + done.stderr)
        if done.returncode or told is None:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:].strip()}")
        self.perplexity, self.error = float(told[1]), float(told[2])
        with scores.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise SystemExit(f"{program[0]} writes another format than this script reads")
            window, vocabulary, count = map(int, np.fromfile(file, np.int32, 3))
            self.windows = np.fromfile(file, np.int32, count * window).reshape(count, window)
            begin = file.tell()
        rows, columns = window - 1 - window // 2, _HEAD + (vocabulary + 1) // 2 * 2
        self._rows = np.memmap(scores, np.uint16, "r", begin, (count, rows, columns))[..., : _HEAD + vocabulary]

    def __iter__(self) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yields the tokens of each window, and the scores of its second half."""
        for tokens, rows in zip(self.windows, self._rows, strict=True):
            scale, least = np.ascontiguousarray(rows[:, :_HEAD]).view(np.float32).T[..., None]
            yield tokens.tolist(), torch.from_numpy(rows[:, _HEAD:] * scale + least)


def main() -> None:
    """Prints a line of JSON for each way of loading the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+", type=Path, metavar="TEXT")
    parser.add_argument("--tokens", type=int, default=50_000, help="most tokens to read")
    parser.add_argument("--window", type=int, default=512, help="tokens that are read at a time, without context")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, W8A8], default=list(WAYS))
    parser.add_argument("--against", metavar="PATH", help="llama.cpp's llama-perplexity; MODEL is a GGUF file then")
    parser.add_argument("--against-option", action="append", default=[], help="passed on to it, such as --no-repack")
    options = parser.parse_args()
    runners = {way: _opened(options.model, way, options.window) for way in dict.fromkeys(["bfloat16", *options.ways])}
    texts = [text.read_text(encoding="utf-8") for text in options.texts]
    with tempfile.TemporaryDirectory() as folder:
        theirs = None
        if options.against:
            text = Path(folder) / "text"
            text.write_text("".join(texts), encoding="utf-8")
            program = [options.against, *options.against_option]
            theirs = Theirs(program, options.model, text, options.tokens, options.window, Path(folder))
        count, totals = _measure(
            runners, theirs or _windows(runners["bfloat16"], texts, options.tokens, options.window)
        )
    if count == 0:
        parser.error("the texts have fewer tokens than one window")
    for way, total in totals.items():
        row = {"way": way, "tokens": count, **total.figures(count)}
        if theirs is not None and way == THEIRS:
            # Its own: the file cuts off small probabilities.
            row.update(perplexity=theirs.perplexity, standard_error=theirs.error)
        else:
            row["weight_bytes"] = runners[way].model.variants.store.nbytes
        print(json.dumps(row), flush=True)


def _opened(model: str, way: str, window: int) -> ModelRunner:
    sizes: dict[str, int] = {"max_model_len": window, "max_num_seqs": 1}
    if way == W8A8:
        return ModelRunner(str(write_w8a8(Path(model))), backend="cpu", load_tokenizer=False, **sizes)
    return ModelRunner(model, backend="cpu", **sizes, **WAYS[way])


def _windows(runner: ModelRunner, texts: Sequence[str], most: int, window: int) -> Iterator[tuple[list[int], None]]:
    tokenizer = runner.tokenizer
    assert tokenizer is not None
    ids = [token for text in texts for token in tokenizer.encode(text)]
    for start in range(0, min(len(ids), most) - window + 1, window):
        yield ids[start : start + window], None


def _measure(runners: Mapping[str, Any], windows: Any) -> tuple[int, dict[str, Totals]]:
    """Returns the number of predictions, and the sums of each way."""
    totals: dict[str, Totals] = {}
    count = 0
    for tokens, theirs in windows:
        first = 0 if theirs is None else len(tokens) - 1 - len(theirs)
        bases = {} if theirs is None else {THEIRS: Base(theirs)}
        following = torch.tensor(tokens[first + 1 :])
        for way, runner in runners.items():
            logits = PagedDriver(runner.model, 1, max_len=len(tokens)).prefill([tokens])[first:-1].float()
            scores = logits.log_softmax(-1)
            if "bfloat16" not in bases:  # the first one
                bases["bfloat16"] = Base(scores)
            totals.setdefault(way, Totals(list(bases))).add(scores, following, bases)
        if theirs is not None:
            totals.setdefault(THEIRS, Totals(list(bases))).add(theirs, following, bases)
        count += len(following)
    return count, totals


if __name__ == "__main__":
    main()
