# SPDX-License-Identifier: Apache-2.0
"""Every answer follows its schema, of a model that would write anything; what cannot be followed is refused by name."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from schema_cases import schemas
from scripted_model import END, write_random
from serving import Served, serving

from atb_core import ModelRunner


@pytest.fixture(scope="module")
def random_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(ModelRunner(write_random(tmp_path_factory.mktemp("random") / "tiny"))) as found:
        yield found


def answers(served: Served, given: list[Any], seed: int = 0) -> list[Any]:
    """Returns an answer for each schema: its JSON, `None` if it was cut, or the message of a refusal."""
    tokenizer: Any = served.runner.tokenizer
    # What ends a value is more likely, so that most answers are short; spaces between values would go on.
    bias = {tokenizer.backend.token_to_id(text): 2 for text in '"}],'} | {tokenizer.backend.token_to_id(END): 9}
    for space in "\n\t \r":
        bias[tokenizer.encode(space, add_special_tokens=False)[0]] = -3

    def ask(schema: Any) -> Any:
        body = {"prompt": json.dumps(schema)[:50], "max_tokens": 400, "temperature": 1, "seed": seed,
                "logit_bias": bias, "structured_outputs": {"json": schema}}  # fmt: skip
        with served.http() as http:
            answer = http.post("/v1/completions", json=body)
        if answer.status_code == 400:
            assert answer.json()["error"]["param"] == "structured_outputs"
            return answer.json()["error"]["message"]
        assert answer.status_code == 200, answer.text
        (choice,) = answer.json()["choices"]
        return [json.loads(choice["text"])] if choice["finish_reason"] == "stop" else None

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, given))


def check(given: list[Any], found: list[Any], draft: Any = jsonschema.Draft202012Validator) -> Counter[str]:
    """Validates answers and returns how many there are of each kind."""
    kinds: Counter[str] = Counter()
    for schema, answer in zip(given, found, strict=True):
        kinds["refused" if isinstance(answer, str) else "cut" if answer is None else "valid"] += 1
        if isinstance(answer, list):
            draft(schema, format_checker=draft.FORMAT_CHECKER).validate(answer[0])
    return kinds


def check_generated(served: Served, count: int) -> None:
    given = schemas(count)
    kinds = check(given, answers(served, given))
    assert kinds["refused"] == 0
    assert kinds["valid"] >= 0.9 * count, kinds


def test_answers_follow_their_schemas(random_served: Served) -> None:
    check_generated(random_served, 20)


@pytest.mark.slow
def test_answers_follow_two_hundred_schemas(random_served: Served) -> None:
    check_generated(random_served, 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "draft", "least"),
    [("draft2020-12", jsonschema.Draft202012Validator, 150), ("draft7", jsonschema.Draft7Validator, 130)],
    ids=["2020-12", "7"],
)
def test_answers_follow_the_schemas_of_the_public_suite(
    random_served: Served, folder: str, draft: Any, least: int
) -> None:
    suite = os.environ.get("ATB_JSON_SCHEMA_SUITE")
    if suite is None:
        pytest.skip("set ATB_JSON_SCHEMA_SUITE to the folder `tests` of JSON-Schema-Test-Suite, as `nox -s slow` does")
    paths = sorted(Path(suite, folder).glob("*.json"))
    groups = [group for path in paths for group in json.loads(path.read_bytes())]
    # Of those that nothing fits there is no answer, and the others must not refer to other documents.
    given = [each["schema"] for each in groups if any(case["valid"] for case in each["tests"])]
    # Python's regular expressions know no `\p`, so jsonschema cannot check these.
    beyond = ("http://localhost", "\\\\p")
    given = [each for each in given if isinstance(each, dict) and not any(part in json.dumps(each) for part in beyond)]
    found = answers(random_served, given)
    kinds = check(given, found, draft)
    # The others use keywords that llguidance does not know.
    assert kinds["cut"] == 0
    assert kinds["valid"] >= least, kinds


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {"const": 1}}, "contains"),
        ({"if": {"type": "string"}, "then": {"maxLength": 3}}, "if"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"$dynamicRef": "#node"}, "$dynamicRef"),
        ({"not": {"type": "string"}}, "not"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "Write anyOf."),
        ({"type": "string", "format": "hostname-of-mine"}, "hostname-of-mine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keywords_that_are_not_followed_are_refused_by_name(
    random_served: Served, schema: dict[str, Any], name: str
) -> None:
    (answer,) = answers(random_served, [schema])
    assert isinstance(answer, str), answer
    assert name in answer
