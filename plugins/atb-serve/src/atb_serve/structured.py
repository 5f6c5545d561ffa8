# SPDX-License-Identifier: Apache-2.0
"""Structured output: grammars of requests, and which tokens they allow, by llguidance."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from atb_serve.errors import ApiError
from atb_serve.schemas import ChatBody, CompletionBody, JsonObjectFormat, JsonSchemaFormat, StructuredOutputs

if TYPE_CHECKING:
    from atb_core import ModelRunner

_MAX_GRAMMAR = 1 << 16
_MAX_DEPTH = 64
_MAX_CHOICES = 1024
# llguidance counts work instead of time: about 50 000 units a millisecond when a grammar is read, 14 000 in a step.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=1_000_000, max_lexer_states=50_000, max_grammar_size=100_000
)
# Between the parts of JSON: a space, or a line break with indentation. A model that goes on with white space, of which
# JSON allows any amount, would write nothing else until its last token.
_JSON_OPTIONS = {"whitespace_pattern": r" |\r?\n[ \t]{0,64}", "lenient": False}
# Of the processor, for one mask: repetitions of repetitions take seconds in each step, which the library does not
# count.
_MASK_SECONDS = 0.5
_Mask = npt.NDArray[np.bool_]


class Grammars:
    """Compiles grammars for the tokens of one model.

    Args:
        runner: The model; one without a tokenizer has no grammars.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        # Masks are computed while the model runs; llguidance gives the lock of Python free.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="atb-mask")

    def compile(self, grammar: str, param: str, after: str | None = None) -> Callable[[], GrammarMask]:
        """Returns what makes the mask of each completion.

        Args:
            grammar: In llguidance's form.
            param: The parameter that it comes from.
            after: The text of a token; what comes before it is not restricted.

        Raises:
            ApiError: The grammar is faulty or too large.
        """
        if len(grammar) > _MAX_GRAMMAR:
            raise ApiError(f"'{param}' is larger than {_MAX_GRAMMAR >> 10} KiB as a grammar", param=param)
        problem = LLMatcher.validate_grammar(grammar, self._llg_tokenizer, limits=_LIMITS)
        # An option of the library is nothing that a request can set.
        problem = re.sub(r"Enable 'coerce_one_of'.*", "Write anyOf.", problem)
        if problem and not problem.startswith("WARNING"):
            raise ApiError(f"'{param}' cannot be used: {problem:.500}", param=param, code="invalid_grammar")
        matcher = LLMatcher(self._llg_tokenizer, grammar, log_level=0, limits=_LIMITS)
        free_until = None if after is None else self._token_id(after)
        # The first mask builds most of the lexer. Here it holds up nobody, and what allows nothing is refused at once.
        compute = functools.partial(
            _mask_of, vocab_size=self._runner.vocab_size, ends=self._llg_tokenizer.eos_tokens, param=param
        )
        first = compute(matcher)
        return lambda: GrammarMask(matcher.deep_copy(), first, compute, self._threads, free_until)

    def has_special(self, text: str) -> bool:
        """Returns True if a text is a token that llguidance does not take for its characters."""
        tokenizer = self._runner.tokenizer
        token_id = None if tokenizer is None else tokenizer.backend.token_to_id(text)
        return token_id is not None and self._llg_tokenizer.is_special_token(token_id)

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @functools.cached_property
    def _llg_tokenizer(self) -> LLTokenizer:
        tokenizer = self._runner.tokenizer
        if tokenizer is None:
            raise ApiError("This model has no tokenizer, and therefore no structured output")
        ends = sorted(token_id for token_id in self._runner.eos_token_ids if token_id < self._runner.vocab_size)
        try:
            # Contents and no name, though the library would take one too.
            return LLTokenizer(tokenizer.backend.to_str(), n_vocab=self._runner.vocab_size, eos_token=ends)
        except (AttributeError, ValueError, RuntimeError) as error:
            raise ApiError(f"Structured output does not know this model's kind of tokenizer: {error!s:.200}") from None

    def _token_id(self, text: str) -> int:
        tokenizer = self._runner.tokenizer
        token_id = None if tokenizer is None else tokenizer.backend.token_to_id(text)
        if token_id is None:
            raise ApiError(f"Structured output after thoughts needs a token {text!r}, which this model lacks")
        return int(token_id)


class GrammarMask:
    """The tokens that a grammar allows next in one completion."""

    def __init__(
        self,
        matcher: LLMatcher,
        first: _Mask,
        compute: Callable[[LLMatcher], _Mask],
        threads: ThreadPoolExecutor,
        free_until: int | None,
    ) -> None:
        self._matcher, self._first, self._compute = matcher, first, compute
        self._threads, self._free_until = threads, free_until
        self._next: Future[_Mask] | None = None

    def next_mask(self) -> _Mask | None:
        """Returns the tokens that may follow."""
        if self._free_until is not None:
            return None
        return self._first if self._next is None else self._next.result()

    def accept(self, token_id: int) -> None:
        """Takes a token and begins to compute the mask of the next one."""
        if self._free_until is not None:
            if token_id == self._free_until:
                self._free_until = None
            return
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)
        self._next = self._threads.submit(self._compute, self._matcher)


def _mask_of(matcher: LLMatcher, *, vocab_size: int, ends: list[int], param: str) -> _Mask:
    """Returns the tokens that may follow."""
    begin = time.thread_time()
    bits = matcher.compute_bitmask()
    if time.thread_time() - begin > _MASK_SECONDS:
        raise ApiError(
            f"'{param}' takes too long to follow, as repetitions of repetitions do", param=param, code="invalid_grammar"
        )
    mask = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")[:vocab_size].astype(np.bool_)
    problem = ""
    if matcher.is_error():
        # What follows are the library's counts.
        problem = matcher.get_error().partition("<state>")[0].strip()
        problem = "it allows nothing" if problem == "NoExtensionBias" else problem
    # What has to come is cut into tokens as a prompt is, where the name of a special token is that token.
    if "forced bytes" in problem or (mask[ends].any() and not (matcher.is_accepting() or matcher.is_stopped())):
        problem = "it needs the name of a special token as text"
    if problem:
        raise ApiError(
            f"The answer cannot be held to '{param}': {problem:.300}", param=param, code="invalid_grammar"
        )  # fmt: skip
    return mask


def grammar_of(body: CompletionBody | ChatBody) -> tuple[str, str] | None:
    """Returns the grammar that a request's answer must follow, with the parameter that it comes from.

    Raises:
        ApiError: There are several, or one is no grammar.
    """
    found = []
    if body.structured_outputs is not None:
        found.append((_of_outputs(body.structured_outputs), "structured_outputs"))
    if isinstance(body, ChatBody) and isinstance(body.response_format, JsonObjectFormat):
        found.append((_of_schema({"type": "object"}, "response_format"), "response_format"))
    if isinstance(body, ChatBody) and isinstance(body.response_format, JsonSchemaFormat):
        schema = body.response_format.json_schema.schema
        schema = {"type": "object"} if schema is None else schema
        found.append((_of_schema(schema, "response_format"), "response_format"))
    if len(found) > 1:
        raise ApiError("Give 'response_format' or 'structured_outputs', not both", param="structured_outputs")
    for param in ("ignore_eos", "min_tokens"):
        if found and getattr(body, param):
            raise ApiError(f"An answer that follows a grammar ends with it: leave '{param}' out", param=param)
    return found[0] if found else None


def _of_outputs(given: StructuredOutputs) -> str:
    param = "structured_outputs"
    kinds = [name for name in given.__struct_fields__ if getattr(given, name) not in (None, False)]
    if len(kinds) != 1:
        raise ApiError(f"'{param}' must have exactly one of {', '.join(given.__struct_fields__)}", param=param)
    if given.regex is not None:
        return LLMatcher.grammar_from_regex(given.regex)
    if given.grammar is not None:
        return LLMatcher.grammar_from_lark(given.grammar)
    if given.choice is not None:
        if not 0 < len(given.choice) <= _MAX_CHOICES or "" in given.choice:
            raise ApiError(f"'{param}.choice' must be 1 to {_MAX_CHOICES} texts, none empty", param=f"{param}.choice")
        return LLMatcher.grammar_from_lark(f"start: {' | '.join(map(_literal, given.choice))}\n")
    return _of_schema({"type": "object"} if given.json is None else given.json, param)


def _of_schema(schema: dict[str, Any] | bool, param: str) -> str:
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    level: list[Any] = [schema]
    for _ in range(_MAX_DEPTH):
        level = [child for each in level for child in _children(each)]
    if level:
        raise ApiError(f"'{param}' has a schema that nests deeper than {_MAX_DEPTH}", param=param)
    try:
        return LLMatcher.grammar_from_json_schema(_with_options(schema))
    except ValueError as error:  # for an integer of more than 64 bits
        raise ApiError(f"'{param}' cannot be used: {error!s:.200}", param=param, code="invalid_grammar") from None


def _with_options(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with the library's options, which one of a request could set itself."""
    return {**schema, "x-guidance": _JSON_OPTIONS}


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def call_grammar(
    functions: Iterable[dict[str, Any]],
    call_format: tuple[str, str, str],
    has_special: Callable[[str], bool],
    param: str,
) -> str:
    """Returns the grammar of one call of one of `functions`; see `text_with_calls_grammar`."""
    before, between, after = (_spelled(part, has_special) for part in call_format)
    calls, rules = _call_rules(((each, each.get("parameters")) for each in functions), between, "", param)
    return LLMatcher.grammar_from_lark(f"start: {before} ({calls}) {after}\n{rules}")


def text_with_calls_grammar(
    functions: Iterable[dict[str, Any]],
    strict: Collection[str],
    call_format: tuple[str, str, str],
    has_special: Callable[[str], bool],
    param: str,
) -> str:
    """Returns the grammar of text with any number of calls, in the notation of a family.

    Args:
        functions: The functions that may be called.
        strict: Names of those whose arguments follow their schema; those of others are any object.
        call_format: What stands before the name, between name and arguments, and behind them.
        has_special: Returns True for the text of a special token.
        param: The parameter that it comes from.
    """
    before, between, after = call_format
    found = re.match(r"<[^<>\s]+>", before)
    mark = before if found is None else found[0]
    pairs = ((each, each.get("parameters") if each["name"] in strict else None) for each in functions)
    calls, rules = _call_rules(pairs, _spelled(between, has_special), before[len(mark) :], param)
    # Special tokens are no text.
    thought = "(TEXT <think> TEXT </think>)? " if has_special("<think>") and has_special("</think>") else ""
    # One mark for all: which call it is, is decided by what follows.
    begin = f"mark: TEXT {mark}" if has_special(mark) else f"mark[lazy]: TEXT {_literal(mark)}"
    return LLMatcher.grammar_from_lark(
        f"start: {thought}(mark ({calls}) {_spelled(after, has_special)})* rest\n"
        f"rest: TEXT\nTEXT: /(.|\\n)*/\n{begin}\n{rules}"
    )


def _call_rules(
    functions: Iterable[tuple[dict[str, Any], dict[str, Any] | None]], between: str, before: str, param: str
) -> tuple[str, str]:
    """Returns the alternatives of calls and their rules; a function without a schema takes any object."""
    rules = []
    for index, (function, schema) in enumerate(functions):
        schema = schema or {"type": "object"}
        _of_schema(schema, param)  # checks it
        text = json.dumps(_with_options(schema))
        name = _literal(before + json.dumps(function["name"]))
        rules.append(f"call{index}: {name} {between} arguments{index}\narguments{index}: %json {text}\n")
    return " | ".join(f"call{index}" for index in range(len(rules))), "".join(rules)


def _spelled(text: str, has_special: Callable[[str], bool]) -> str:
    """Returns a text as Lark's grammars write it; special tokens in it, which are no text there, by their names."""
    parts = [part for part in re.split(r"(<[^<>\s]+>)", text) if part]
    return " ".join(part if has_special(part) else _literal(part) for part in parts)


def _literal(text: str) -> str:
    """Returns a text as Lark's grammars write it."""
    return json.dumps(text)
