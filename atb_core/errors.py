# SPDX-License-Identifier: Apache-2.0
"""Errors meant for people: what is wrong, in one paragraph, and what to do next.

The command line prints ``str(error)`` and exits non-zero; a library user catches :class:`AtbError` or a subclass.
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
    """Base of every error this package raises on purpose.

    Args:
        message: names the thing that is wrong and the cause.
        hint: the next step, a full sentence; ``None`` when the message already says it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        # Both go to args so that the error survives pickling (worker processes send errors back).
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
    """`text` with control characters spelled out: names from an untrusted file must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class GraphError(AtbError):
    """A network was recorded or rewritten wrongly."""


class ShapeError(GraphError):
    """Shapes or dtypes of an op's inputs do not fit together."""


class VerifyError(GraphError):
    """A network breaks a rule of the graph language, for example after a pass."""


class EngineError(AtbError):
    """An engine was given names, dtypes, shapes or values it cannot run."""


class BackendUnavailableError(EngineError):
    """The backend asked for is not built, or this machine cannot run it."""


class ConfigError(AtbError):
    """A model's configuration is missing a value or has an impossible one."""


class WeightsError(AtbError):
    """A checkpoint file is damaged, hostile, incomplete or of an unsupported kind."""


class ModelNotFoundError(AtbError):
    """A model reference leads to nothing that can be opened."""


class TokenizerError(AtbError):
    """A tokenizer or chat template is missing, damaged or of an unsupported kind."""


class PluginError(AtbError):
    """An installed plugin is broken, incompatible or in conflict with another."""


class SettingsError(AtbError):
    """The settings file or an environment variable says something impossible."""


class UnknownModelError(PluginError):
    """No installed family serves this ``model_type``."""


class RequestError(AtbError):
    """A request to the runner cannot be served as asked."""


class ContextLengthError(RequestError):
    """A prompt is longer than the context, or leaves no room for an answer."""
