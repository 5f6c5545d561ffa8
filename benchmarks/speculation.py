# SPDX-License-Identifier: Apache-2.0
"""Measures decode with guessed tokens beside decode without: a text that repeats itself, and one that does not.

The first is Python code that is to be written once more with a change, the second is prose, sampled at temperature 1,
because a small model's most probable prose repeats itself. It needs real weights. Tokens are compared, too.
"""

from __future__ import annotations

import argparse
import inspect
import statistics
import textwrap
import time

from atb_core import ModelRunner, SamplingParams
from atb_profile.bench.machine import machine

TASKS = {
    "code": "Rewrite this code with the name `words` instead of `text`, and answer with the code only.\n\n```python\n"
    + inspect.getsource(textwrap.TextWrapper)[-3600:]
    + "```",
    "prose": "Write a long story about a lighthouse keeper who finds a map.",
}


def measured(runner: ModelRunner, prompt: str, params: SamplingParams) -> tuple[float, list[int], float]:
    """Returns the seconds after the first token, the tokens, and the tokens that each step gave."""
    steps, begin = runner.engine_loop.num_steps, 0.0
    for chunk in runner.chat([{"role": "user", "content": prompt}], params, stream=True):
        begin = begin or time.perf_counter()
        last = chunk
    seconds, output = time.perf_counter() - begin, last.output
    assert output is not None
    return (
        seconds,
        output.outputs[0].token_ids,
        len(output.outputs[0].token_ids) / (runner.engine_loop.num_steps - steps),
    )


def main() -> None:
    """Runs both in alternating order and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a chat model: a directory, a GGUF file, a hub id or pypi:PACKAGE")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    about = machine(args.threads)
    print(f"{about['processor']}, {about['isa']}, {about['threads']} threads, load {about['load_average']}", flush=True)
    configs = {"with": {"method": "ngram"}, "without": None}
    runners = {
        name: ModelRunner(
            args.model,
            num_threads=args.threads,
            max_model_len=4096,
            enable_prefix_caching=False,
            speculative_config=how,
        )
        for name, how in configs.items()
    }
    for task, prompt in TASKS.items():
        ratios, per_step = [], 0.0
        for number in range(args.rounds + 1):
            took, temperature = {}, 1.0 if task == "prose" else 0.0
            params = SamplingParams(temperature=temperature, seed=number, max_tokens=args.max_tokens, ignore_eos=True)
            for name in sorted(runners, reverse=bool(number % 2)):
                took[name] = measured(runners[name], prompt, params)
            if took["with"][1] != took["without"][1]:
                raise SystemExit(f"{task}: guesses change the tokens")
            if number:  # the first round builds graphs
                ratios.append(took["without"][0] / took["with"][0])
                per_step = took["with"][2]
        print(
            f"{task}: {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{per_step:.1f} tokens a step",
            flush=True,
        )


if __name__ == "__main__":
    main()
