# SPDX-License-Identifier: Apache-2.0
"""Reports on answers: a record for JSON, and times in one line."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atb_core import ModelRunner, RequestOutput
    from atb_core.runner.outputs import Logprob


def answer_record(output: RequestOutput, runner: ModelRunner) -> dict[str, Any]:
    """Returns the fields of a result for JSON, with texts beside token ids, and the rate of decoding."""
    record = dataclasses.asdict(output)
    record["prompt_logprobs"] = _logprobs(output.prompt_logprobs)
    record["metrics"]["tokens_per_second"] = decode_rate(output)
    for completion, own in zip(record["outputs"], output.outputs, strict=True):
        completion["logprobs"] = _logprobs(own.logprobs)
        if (tokenizer := runner.tokenizer) is not None:
            completion["tokens"] = [tokenizer.decode([one], skip_special_tokens=False) for one in own.token_ids]
    return record


def _logprobs(steps: list[dict[int, Logprob]] | list[dict[int, Logprob] | None] | None) -> list[Any] | None:
    if steps is None:
        return None
    return [step and {token_id: entry._asdict() for token_id, entry in step.items()} for step in steps]


def json_text(record: dict[str, Any]) -> str:
    """Returns a JSON object with one line for each field."""
    fields = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in record.items())
    return "{\n" + ",\n".join(fields) + "\n}"


def decode_rate(output: RequestOutput) -> float | None:
    """Returns tokens a second after the first of each completion, `None` if there are no more."""
    decoded = sum(len(one.token_ids) for one in output.outputs) - len(output.outputs)
    return decoded / output.metrics.decode_time if decoded and output.metrics.decode_time > 0 else None


def times_text(output: RequestOutput) -> str:
    """Returns how long prefill and decode took, how many guesses were right, and why the answer ended."""
    prompt, first = len(output.prompt_token_ids), output.metrics.time_to_first_token
    generated, rate = sum(len(one.token_ids) for one in output.outputs), decode_rate(output)
    prefill = f"{prompt / first:.0f} tok/s" if first > 0 else "-"
    decode = "-" if rate is None else f"{rate:.1f} tok/s"
    drafted, accepted = output.metrics.num_draft_tokens, output.metrics.num_accepted_tokens
    guesses = f" | {accepted} of {drafted} guessed tokens were right" if drafted else ""
    reasons = dict.fromkeys(str(one.finish_reason) for one in output.outputs)
    cached = f" ({output.num_cached_tokens} cached)" if output.num_cached_tokens else ""
    return (
        f"prompt {prompt} tokens{cached}, first token after {first:.2f} s ({prefill}) | "
        f"{generated} tokens generated ({decode}){guesses} | ended by: {', '.join(reasons)}"
    )
