# SPDX-License-Identifier: Apache-2.0
"""Makes the shared objects of one family's tests: tiny checkpoints, Hugging Face's logits for them, loaded models."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from atb_core.errors import PluginError
from atb_core.plugins.registry import Family, registry
from atb_testing.capabilities import Capability
from atb_testing.cases import BASE, STANDARD_CASES
from atb_testing.chats import DirectoryRenderers, Renderers, SourceRenderers
from atb_testing.checkpoints import tiny_checkpoint
from atb_testing.conformance import ErrorReport, Oracle, torch_threads
from atb_testing.definition import FamilyDefinition
from atb_testing.driver import open_model
from atb_testing.imports import ImportReport, import_report


class Lab:
    """Makes each object on first use and keeps it while the tests of the class run.

    Args:
        family: the test class, for its configurations.
        root: an empty directory for checkpoints.
    """

    def __init__(self, family: type[FamilyDefinition], root: Path) -> None:
        self.family = family
        self.root = root
        self._checkpoints: dict[tuple[str, str, int], Path] = {}
        self._oracles: dict[tuple[str, str], Oracle] = {}
        self._models: dict[tuple[str, str, str], Any] = {}
        self._logits: dict[tuple[str, str, str], torch.Tensor] = {}

    @cached_property
    def package(self) -> Family:
        """Returns the installed family."""
        return registry().find(self.family.model_type)

    @cached_property
    def imports(self) -> ImportReport:
        """Returns the report of importing the package."""
        return import_report(self.package)

    @cached_property
    def renderers(self) -> Renderers:
        """Returns the renderers of the family's chat template."""
        directory, source = self.family.tokenizer_directory, self.family.chat_template
        if (directory is None) == (source is None):
            raise PluginError(
                f"{self.family.__name__} claims {Capability.CHAT_TEMPLATE} but sets no template, or two",
                hint="Set either chat_template (its source) or tokenizer_directory in the class.",
            )
        return DirectoryRenderers(Path(directory)) if directory is not None else SourceRenderers(str(source))

    def config(self, case: str = BASE) -> dict[str, Any]:
        """Returns the fields of `config.json` that a case sets, over those of the tiny decoder."""
        own: Mapping[str, Any] | None = self.family.cases.get(case, STANDARD_CASES.get(case))
        if own is None:
            raise PluginError(f"{self.family.__name__} has no case {case!r}")
        return {**self.family.config, **own}

    def checkpoint(self, case: str = BASE, dtype: str = "float32", shards: int = 1) -> Path:
        """Returns the directory of a random checkpoint."""
        key = (case, dtype, shards)
        if key not in self._checkpoints:
            directory = self.root / f"checkpoint-{len(self._checkpoints)}"
            tiny_checkpoint(directory, self.family.model_type, getattr(torch, dtype), shards, **self.config(case))
            self._checkpoints[key] = directory
        return self._checkpoints[key]

    def oracle(self, case: str = BASE, dtype: str = "float32") -> Oracle:
        """Returns Hugging Face's logits for the standard prompts, in float32 and in `dtype`."""
        key = (case, dtype)
        if key not in self._oracles:
            with torch_threads(1):
                self._oracles[key] = Oracle.of(self.checkpoint(case, dtype))
        return self._oracles[key]

    def model(self, case: str = BASE, dtype: str = "float32", backend: Any = "reference") -> Any:
        """Returns the family's loaded model of a checkpoint; it is shared by the tests, so none may change it."""
        key = (case, dtype, str(backend))
        if key not in self._models:
            self._models[key] = self.fresh_model(case, dtype, backend)
        return self._models[key]

    def logits(self, case: str = BASE, dtype: str = "float32", backend: Any = "reference") -> torch.Tensor:
        """Returns the shared model's logits for the standard prompts, computed once: tests must not change them."""
        key = (case, dtype, str(backend))
        if key not in self._logits:
            with torch_threads(1):
                self._logits[key] = self.oracle(case, dtype).run(self.model(case, dtype, backend))
        return self._logits[key]

    def fresh_model(self, case: str = BASE, dtype: str = "float32", backend: Any = "reference") -> Any:
        """Returns a new model for a test that changes it."""
        return open_model(self.checkpoint(case, dtype), backend)

    def torch_error(self, dtype: str) -> ErrorReport:
        """Returns torch's own errors against float32 in `dtype` on the base case, as a measure of rounding."""
        return self.oracle(BASE, dtype).report(self.oracle(BASE, dtype).peer)
