# SPDX-License-Identifier: Apache-2.0
"""Errors with a message for the user: the cause in one paragraph, and the next step.

The command line prints `str(error)` and exits with a non-zero status. Library users catch `AtbError` or a subclass.
"""

from __future__ import annotations

__all__ = [
    "AtbError", "BackendUnavailableError", "ConfigError", "ContextLengthError", "EngineError", "GraphError",
    "ModelNotFoundError", "PluginError", "QueueFullError", "RequestError", "RequestTimeoutError", "SettingsError",
    "ShapeError", "TokenizerError", "UnknownModelError", "VerifyError", "WeightsError",
]  # fmt: skip


_LONGEST_MESSAGE = 4000


def printable(text: object, limit: int = 500, keep: str = "") -> str:
    """Returns a text from outside (a file, a package's metadata, an exception) as messages and tables show it.

    Escapes what is not printable: control characters, marks that change the direction of text, halves of surrogates.

    Args:
        text: a string, or what becomes one.
        limit: of a longer text the middle is left out.
        keep: characters that stay though they are not printable.
    """
    text = str(text)
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]} ... ({len(text)} characters) ... {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """Returns the `repr` of a value for a message, shortened; an integer of thousands of digits has none."""
    try:
        return printable(repr(value), 100)
    except Exception:
        return f"a value of type {type(value).__name__}"


def error_text(error: BaseException) -> str:
    """Returns type and message of any exception in one printable line, also if its message cannot be made."""
    name = type(error).__name__
    try:
        message = error.message if isinstance(error, AtbError) else str(error)
    except BaseException:
        return name
    message = " ".join(message.split())
    return printable(f"{name}: {message}" if message else name, 2000)


class AtbError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: names the object of the error and the cause. A long one is shortened, see `printable`.
        hint: the next step as a full sentence; `None` if the message implies it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        # Both are in args so that the error can be pickled: worker processes send errors to their parent.
        super().__init__(message, hint)
        self.message = printable(message, _LONGEST_MESSAGE, "\n\t")
        self.hint = None if hint is None else printable(hint, _LONGEST_MESSAGE, "\n\t")

    def __str__(self) -> str:
        text = " ".join(self.message.split())
        if self.hint:
            if text and text[-1] not in ".!?:":
                text += "."
            text = f"{text} {' '.join(self.hint.split())}"
        return text


class GraphError(AtbError):
    """Error in recording or rewriting a network."""


class ShapeError(GraphError):
    """Error for shapes or dtypes of an op's inputs that do not fit together."""


class VerifyError(GraphError):
    """Error for a network that breaks a rule of the graph, for example after a pass."""


class EngineError(AtbError):
    """Error for names, dtypes, shapes or values that an engine cannot run."""


class BackendUnavailableError(EngineError):
    """Error for a backend that is not built, or that this machine cannot run."""


class ConfigError(AtbError):
    """Error for a model configuration with missing or invalid values."""


class WeightsError(AtbError):
    """Error for a checkpoint file that is damaged, malicious, incomplete or of an unsupported format."""


class ModelNotFoundError(AtbError):
    """Error for a model reference that does not lead to a checkpoint."""


class TokenizerError(AtbError):
    """Error for a tokenizer or chat template that is missing, damaged or of an unsupported kind."""


class PluginError(AtbError):
    """Error for an installed plugin that is broken, incompatible or in conflict with another one."""


class SettingsError(AtbError):
    """Error for invalid values in the settings file or in an environment variable."""


class UnknownModelError(PluginError):
    """Error for a `model_type` that no installed family serves."""


class RequestError(AtbError):
    """Error for a request that the runner cannot serve."""


class ContextLengthError(RequestError):
    """Error for a prompt that is longer than the context, or leaves no room for an answer."""


class QueueFullError(RequestError):
    """Error for a request that came while too many others were waiting."""


class RequestTimeoutError(RequestError):
    """Error for a request that was not finished within its time."""
