# SPDX-License-Identifier: Apache-2.0
"""Errors with a message for the user: the cause in one paragraph, and the next step.

The command line prints `str(error)` and exits with a non-zero status. Library users catch `AtbError` or a subclass.
"""

from __future__ import annotations

__all__ = [
    "AtbError",
    "BackendUnavailableError",
    "ConfigError",
    "ContextLengthError",
    "EngineError",
    "GraphError",
    "ModelNotFoundError",
    "PluginError",
    "RequestError",
    "SettingsError",
    "ShapeError",
    "TokenizerError",
    "UnknownModelError",
    "VerifyError",
    "WeightsError",
]


class AtbError(Exception):
    """Base of all errors that this package raises on purpose.

    Args:
        message: names the object of the error and the cause.
        hint: the next step as a full sentence; `None` if the message implies it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        # Both are in args so that the error can be pickled: worker processes send errors to their parent.
        super().__init__(message, hint)
        self.message = _printable(message)
        self.hint = None if hint is None else _printable(hint)

    def __str__(self) -> str:
        text = " ".join(self.message.split())
        if self.hint:
            if text and text[-1] not in ".!?:":
                text += "."
            text = f"{text} {' '.join(self.hint.split())}"
        return text


def _printable(text: str) -> str:
    """Returns `text` with control characters escaped, so that names from untrusted files cannot control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


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
