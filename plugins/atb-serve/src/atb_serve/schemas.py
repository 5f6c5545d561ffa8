# SPDX-License-Identifier: Apache-2.0
"""Bodies of requests. A field that is not here is refused; one of type `Ignored` is accepted and has no effect.

Clients write null for what they do not ask for, so that fields of OpenAI's that are not supported are `Unsupported`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Ignored = Annotated[Any, Meta(description="Accepted and ignored.", extra={"ignored": True})]
Unsupported = Annotated[None, Meta(description="Not supported.")]
# Core and the server's limits check values, and name what is wrong; the description only tells their ranges.
Count = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
NonNegative = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
Share = Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
Penalty = Annotated[float, Meta(extra_json_schema={"minimum": -2, "maximum": 2})]
Temperature = Annotated[float, Meta(extra_json_schema={"minimum": 0, "maximum": 2})]
_NOT_EMPTY = Meta(extra_json_schema={"minItems": 1})
# Some templates know further roles, which the description does not mention.
Role = Annotated[str, Meta(extra_json_schema={"enum": ["system", "developer", "user", "assistant", "tool"]})]
Name = Annotated[str, Meta(pattern=r"\A[a-zA-Z0-9_.-]{1,64}\Z")]


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of all bodies; unknown fields are errors."""


class StreamOptions(_Body, kw_only=True):
    """Options of a stream."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Ignored = None


class StructuredOutputs(_Body, kw_only=True):
    """vLLM's structured output: exactly one of these."""

    json: dict[str, Any] | bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchema(_Body, kw_only=True):
    """A JSON schema with a name."""

    name: Name
    schema: dict[str, Any] | None = None
    description: Ignored = None
    strict: Ignored = None


class TextFormat(_Body, tag="text"):
    """Any text."""


class JsonObjectFormat(_Body, tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(_Body, tag="json_schema"):
    """JSON that a schema accepts."""

    json_schema: JsonSchema


class SamplingBody(_Body, kw_only=True):
    """Fields of `/v1/completions` and `/v1/chat/completions` that choose tokens."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Count | None = None
    seed: NonNegative | None = None
    stop: str | list[str] | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: NonNegative | None = None
    # vLLM's further parameters.
    top_k: int | None = None
    min_p: Share | None = None
    repetition_penalty: float | None = None
    min_tokens: NonNegative | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    user: Ignored = None


class CompletionBody(SamplingBody, kw_only=True):
    """Body of `/v1/completions`."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: NonNegative | None = None
    best_of: Count | None = None
    suffix: Unsupported = None


class FunctionCall(_Body, kw_only=True):
    """A call that the model made earlier; `arguments` is a JSON object as text."""

    name: Name
    arguments: str


class ToolCallBody(_Body, kw_only=True):
    """A tool call in an assistant's message."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"
    index: Ignored = None


class Message(_Body, kw_only=True):
    """One message of a conversation; the role and parts of the content are checked with the chat template."""

    role: Role
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCallBody] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    # As other servers call it.
    reasoning: str | None = None
    # A client may send an answer back as it came, or with what it has added.
    refusal: Ignored = None
    annotations: Ignored = None
    provider_specific_fields: Ignored = None
    audio: Unsupported = None
    function_call: Unsupported = None


class Function(_Body, kw_only=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Body, kw_only=True):
    """A tool; only functions exist."""

    function: Function
    type: Literal["function"]


class FunctionName(_Body, kw_only=True):
    """The name of a function."""

    name: Name


class ToolChoice(_Body, kw_only=True):
    """The one function that the model has to call."""

    function: FunctionName
    type: Literal["function"] = "function"


class ChatBody(SamplingBody, kw_only=True):
    """Body of `/v1/chat/completions`."""

    messages: Annotated[list[Message], _NOT_EMPTY]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: NonNegative | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    audio: Unsupported = None
    function_call: Unsupported = None
    functions: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None


class EmbeddingsBody(_Body, kw_only=True):
    """Body of `/v1/embeddings`."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: Ignored = None


class TokenizeBody(_Body, kw_only=True):
    """Body of `/tokenize`: a text, or a conversation to which the chat template is applied."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(_Body, kw_only=True):
    """Body of `/detokenize`."""

    tokens: list[int]
    model: str | None = None


class InputPart(_Body, kw_only=True):
    """Text in the content of an item; thoughts in one of type `reasoning`."""

    type: Literal["input_text", "output_text", "reasoning_text", "text"]
    text: str
    annotations: Ignored = None
    logprobs: Ignored = None


class InputItem(_Body, kw_only=True):
    """An item of the input of `/v1/responses`: a message, a call, its output, or thoughts, which are left out."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Role | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: Name | None = None
    arguments: str | None = None
    output: str | list[InputPart] | None = None
    # An answer may be sent back as it came.
    id: Ignored = None
    phase: Ignored = None
    status: Ignored = None
    summary: Ignored = None
    encrypted_content: Ignored = None


class FlatTool(_Body, kw_only=True):
    """A function that the model may call, as `/v1/responses` writes it."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FlatChoice(_Body, kw_only=True):
    """The one function that the model has to call, as `/v1/responses` writes it."""

    type: Literal["function"]
    name: Name


class FlatJsonSchema(_Body, kw_only=True, tag="json_schema"):
    """JSON that a schema accepts, as `/v1/responses` writes it."""

    name: Name
    schema: dict[str, Any]
    description: Ignored = None
    strict: Ignored = None


class TextOptions(_Body, kw_only=True):
    """The form of the text."""

    format: TextFormat | JsonObjectFormat | FlatJsonSchema | None = None
    verbosity: Unsupported = None


class ObfuscationOptions(_Body, kw_only=True):
    """Options of a stream of `/v1/responses`."""

    include_obfuscation: Ignored = None


class ReasoningOptions(_Body, kw_only=True):
    """Options of thoughts, of which none is supported."""

    effort: Unsupported = None
    summary: Unsupported = None
    generate_summary: Unsupported = None


class ResponsesBody(_Body, kw_only=True):
    """Body of `/v1/responses`."""

    input: str | Annotated[list[InputItem], _NOT_EMPTY]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    stream: bool | None = None
    stream_options: ObfuscationOptions | None = None
    tools: list[FlatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["disabled"] | None = None
    background: bool | None = None
    reasoning: ReasoningOptions | None = None
    # Thoughts are in the answer as text.
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    top_logprobs: Literal[0] | None = None
    context_management: Unsupported = None
    conversation: Unsupported = None
    max_tool_calls: Unsupported = None
    previous_response_id: Unsupported = None
    prompt: Unsupported = None
    store: Ignored = None
    user: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None


class LoadAdapterBody(_Body, kw_only=True):
    """Body of `/v1/load_lora_adapter`, as vLLM has it."""

    lora_name: str
    lora_path: str
    load_inplace: bool | None = None


class UnloadAdapterBody(_Body, kw_only=True):
    """Body of `/v1/unload_lora_adapter`."""

    lora_name: str
    lora_int_id: Ignored = None
