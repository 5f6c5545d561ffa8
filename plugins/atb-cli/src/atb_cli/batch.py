# SPDX-License-Identifier: Apache-2.0
"""`atb run --input FILE`: prompts from a file of JSON lines, answered together and written in their order."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atb_cli.answers import answer_record
from atb_cli.output import writing
from atb_core.errors import AtbError, RequestError
from atb_core.files import parse_json
from atb_core.runner.sampling_params import SamplingParams

if TYPE_CHECKING:
    from atb_cli.options import Session
    from atb_core import RequestOutput

_PROMPTS = ("prompt", "messages", "prompt_token_ids")
_PARAMETERS = frozenset(field.name for field in dataclasses.fields(SamplingParams))
_LISTED, _MOST_BAD = 5, 1000
_LONGEST_LINE = 16 << 20


@dataclasses.dataclass
class Line:
    """One line of the input: its prompt, its own sampling parameters, and an `id` that is copied to the answer."""

    number: int
    prompt: Any
    params: dict[str, Any]
    id: Any = None


def read_lines(source: str, raw: bool, system: str | None) -> list[Line]:
    """Reads all prompts of a file, `-` for stdin. Empty lines are left out.

    Args:
        source: The file.
        raw: Continues texts as they are; otherwise each is a user's message of a chat.
        system: System message before each such text.

    Raises:
        RequestError: Lines that are wrong, by their numbers.
    """
    lines, bad = [], []
    with click.open_file(source, "rb") as file:
        for number, text in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
            if len(text) > _LONGEST_LINE:
                raise RequestError(f"{source}: line {number} is longer than {_LONGEST_LINE >> 20} MiB")
            try:
                if text.strip():
                    lines.append(_line(number, text.strip(), raw, system))
            except (ValueError, RequestError) as error:
                bad.append(f"line {number}: {error.message if isinstance(error, RequestError) else error}")
            if len(bad) > _MOST_BAD:  # it is no such file, and may be without end
                break
    if bad:
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise RequestError(
            f"{source}: {'; '.join(bad[:_LISTED])}{more}",
            hint='A line is a text in quotes, or an object such as {"prompt": "Hello", "max_tokens": 20}.',
        )
    if not lines:
        raise RequestError(f"{source} has no prompts")
    return lines


def _line(number: int, text: bytes, raw: bool, system: str | None) -> Line:
    fields = parse_json(b'{"prompt": ' + text + b"}" if text.startswith(b'"') else text)
    prompts = [name for name in _PROMPTS if name in fields]
    if len(prompts) != 1:
        raise ValueError(f"it must have one of {', '.join(_PROMPTS)}")
    prompt = fields.pop(prompts[0])
    if not isinstance(prompt, str if prompts[0] == "prompt" else list):
        raise ValueError(f"{prompts[0]} must be a {'text' if prompts[0] == 'prompt' else 'list'}")
    if prompts[0] == "prompt" and not raw:
        messages = [{"role": "system", "content": system}] if system is not None else []
        prompt = [*messages, {"role": "user", "content": prompt}]
    elif prompts[0] != "messages":
        prompt = {prompts[0]: prompt}
    own_id = fields.pop("id", None)
    if unknown := fields.keys() - _PARAMETERS:
        raise ValueError(f"it has the key {min(unknown)!r}, which is no sampling parameter")
    if isinstance(bias := fields.get("logit_bias"), dict):
        # JSON has no other keys than texts.
        fields["logit_bias"] = {int(key) if key.isdecimal() else key: value for key, value in bias.items()}
    SamplingParams(**{"max_tokens": None, **fields})
    return Line(number, prompt, fields, own_id)


def last_answered(path: Path, resume: bool) -> int:
    """Returns the number of the last line that a file has an answer to, 0 if there is no such file.

    Raises:
        UsageError: The file exists, and not to be resumed.
        AtbError: The file is to be resumed and its last line is no answer.
    """
    if not path.exists():
        return 0
    if not resume:
        raise click.UsageError(f"{path} exists; --resume goes on after its last answer")
    with open(path, "r+b") as file:
        written = file.read()
        kept = written[: written.rfind(b"\n") + 1]
        try:
            number = int(parse_json(kept.splitlines()[-1])["line"]) if kept else 0
        except (ValueError, KeyError, TypeError):
            raise AtbError(f"{path}: its last line is no answer of atb run", hint="Choose another --output.") from None
        # A line that was cut off when a run ended is answered again.
        file.truncate(len(kept))
    return number


def answer_lines(session: Session, lines: Sequence[Line], source: str, output: Path | None) -> None:
    """Answers all lines together; appends each answer to the output as soon as those before it are written.

    Raises:
        RequestError: A prompt cannot be served; nothing has been answered then.
    """
    from tqdm import tqdm

    runner, waiting, written = session.runner, dict[int, "RequestOutput"](), 0
    params = [dataclasses.replace(session.sampling, **line.params) for line in lines]
    try:
        chunks = runner.generate(
            [line.prompt for line in lines],
            params,
            stream=True,
            chat_template_kwargs=session.template_kwargs,
            adapter_ids=session.adapter,
        )
    except RequestError as error:
        message = re.sub(
            r"^(?:The prompt|Prompt (\d+))",
            lambda match: f"Line {lines[int(match[1] or 0)].number} of {'stdin' if source == '-' else source}",
            error.message,
        )
        raise type(error)(message, error.hint) from None
    bar = tqdm(total=len(lines), unit=" prompts", leave=False, disable=None)
    with bar, writing(output or "stdout"), click.open_file(str(output or "-"), "a", encoding="utf-8") as out:
        for chunk in chunks:
            if chunk.output is None:
                continue
            waiting[chunk.prompt_index] = chunk.output
            while written in waiting:
                line = lines[written]
                record = {"line": line.number, "id": line.id, **answer_record(waiting.pop(written), runner)}
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
                out.flush()
                written += 1
                bar.update()
