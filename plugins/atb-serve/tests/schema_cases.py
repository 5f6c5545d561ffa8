# SPDX-License-Identifier: Apache-2.0
"""JSON schemas as people write them, any number of them."""

from __future__ import annotations

import random
from typing import Any

_NAMES = ("name", "id", "tags", "value", "kind", "left", "right", "größe", 'a "b"', "x-y")
_PATTERNS = ("[a-z]{2,5}", "^[A-Z][a-z]+$", r"^\d{3}-\d{4}$", "^(yes|no)$", "^#[0-9a-f]{6}$", r"^\w+@\w+\.com$")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")


def schemas(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Returns `count` different schemas, of all kinds; their texts and lists are bounded."""
    return [_Maker(random.Random(f"{seed} {number}")).root() for number in range(count)]


class _Maker:
    """Makes one schema."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator
        self._definitions: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        schema = self._any(3)
        if self._definitions:
            schema = {**schema, "$defs": self._definitions}
        if self._random.random() < 0.3:
            schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "answer", **schema}
        return schema

    def _any(self, depth: int) -> dict[str, Any]:
        kinds = [self._text, self._number, self._literal]
        nested = [self._object, self._object, self._array, self._choice, self._reference, self._merged]
        made = self._random.choice(kinds if depth == 0 else kinds + nested * 2)
        return made(depth)

    def _text(self, depth: int) -> dict[str, Any]:
        kind = self._random.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": self._random.choice(_PATTERNS), "maxLength": 20}
        if kind == 1:
            return {"type": "string", "format": self._random.choice(_FORMATS), "maxLength": 40}
        low = self._random.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + self._random.randrange(12)}

    def _number(self, depth: int) -> dict[str, Any]:
        kind = self._random.choice(("integer", "number"))
        low = self._random.randrange(-1000, 1000)
        schema: dict[str, Any] = {"type": kind}
        schema[self._random.choice(("minimum", "exclusiveMinimum"))] = low
        schema[self._random.choice(("maximum", "exclusiveMaximum"))] = low + self._random.randrange(2, 500)
        if kind == "integer" and self._random.random() < 0.3:
            schema["multipleOf"] = self._random.choice((1, 2))
        return schema

    def _literal(self, depth: int) -> dict[str, Any]:
        values = [None, True, False, 0, -3, 2.5, "", "é", "red", "green", {"a": [1]}, [], 'say "hi"\n']
        kind = self._random.randrange(4)
        if kind == 0:
            return {"const": self._random.choice(values)}
        if kind == 1:
            return {"type": self._random.choice(("boolean", "null"))}
        if kind == 2:
            return {"type": self._random.sample(("boolean", "null", "integer"), 2), "maximum": 9, "minimum": 0}
        return {"enum": self._random.sample(values, self._random.randrange(1, 5))}

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._random.sample(_NAMES, self._random.randrange(1, 4))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self._any(depth - 1) for name in names}}
        schema["required"] = [name for name in names if self._random.random() < 0.7]
        schema["additionalProperties"] = False
        return schema

    def _array(self, depth: int) -> dict[str, Any]:
        low = self._random.randrange(3)
        schema = {"type": "array", "items": self._any(depth - 1), "minItems": low}
        schema["maxItems"] = low + self._random.randrange(3)
        if self._random.random() < 0.3:
            schema["prefixItems"] = [self._any(0)]
        return schema

    def _choice(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self._any(depth - 1) for _ in range(self._random.randrange(1, 4))]}

    def _reference(self, depth: int) -> dict[str, Any]:
        name = f"part{len(self._definitions)}"
        self._definitions[name] = {}
        if self._random.random() < 0.4:  # a tree
            place = {"$ref": f"#/$defs/{name}"}
            child = {"anyOf": [{"type": "null"}, place]}
            self._definitions[name] = {
                "type": "object", "properties": {"value": self._any(0), "next": child},
                "required": ["value", "next"], "additionalProperties": False,
            }  # fmt: skip
        else:
            self._definitions[name] = self._any(depth - 1)
        return {"$ref": f"#/$defs/{name}"}

    def _merged(self, depth: int) -> dict[str, Any]:
        low = self._random.randrange(100)
        return {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + 50}]}
