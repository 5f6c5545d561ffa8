# SPDX-License-Identifier: Apache-2.0
"""Tests of a family's package."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from atb_core.models.base.config import BaseConfig, Rope
from atb_core.models.base.flash_causal_lm_v3 import CausalLM
from atb_core.models.base.router import BaseRouter
from atb_core.plugins.registry import CONFIGS, MODELS, ROUTERS, load
from atb_testing.imports import BUDGET_SECONDS, package_of
from atb_testing.lab import Lab
from atb_testing.surface import private_imports

# Sizes, which the weights must fit, and what does not change the logits.
_NOT_COMPARED = {*BaseConfig.int_limits, "model_type", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id"}


class PackageTests:
    """Tests a family's package, without opening a model."""

    model_type: str

    def test_entry_points_lead_to_the_familys_classes(self, atb_lab: Lab) -> None:
        """Checks the classes of the entry points."""
        assert issubclass(load(ROUTERS, self.model_type), BaseRouter)
        assert issubclass(load(CONFIGS, self.model_type), BaseConfig)
        model_cls = load(MODELS, self.model_type)
        assert issubclass(model_cls, CausalLM), "decorate the model class with @torch_to_mindie_graph()"

    def test_every_field_of_hugging_faces_configuration_is_read(self) -> None:
        """Lists the fields of Hugging Face's class that it turns on and that the family's class does not have."""
        from transformers import AutoConfig

        usual = AutoConfig.for_model(self.model_type).to_dict()
        config_cls = load(CONFIGS, self.model_type)
        unread = config_cls.unread_fields(usual, numbers=False)
        named = ", ".join(f"{name} = {value!r}"[:80] for name, value in unread.items())
        assert not unread, (
            f"the configuration of {self.model_type} has fields that {config_cls.__name__} does not: "
            f"{named}; declare and implement them"
        )

    def test_fields_that_a_file_omits_have_hugging_faces_defaults(self) -> None:
        """Compares a configuration of sizes alone with that of all fields as Hugging Face's class has them."""
        from transformers import AutoConfig

        usual = AutoConfig.for_model(self.model_type).to_dict()
        config_cls = load(CONFIGS, self.model_type)
        if usual.get("head_dim") is None and usual["hidden_size"] % usual["num_attention_heads"]:
            # These defaults make no model: Glm4Moe has 96 heads and a width of 4096.
            usual["head_dim"] = 128
        full = config_cls.from_dict(usual)
        bare = config_cls.from_dict({name: usual[name] for name in usual.keys() & BaseConfig.int_limits})
        named = [field.name for field in dataclasses.fields(full) if field.name not in _NOT_COMPARED]
        pairs = {name: (getattr(bare, name), getattr(full, name)) for name in named}
        for layer in range(full.num_hidden_layers):
            pairs[f"rope_of({layer})"] = (bare.rope_of(layer), full.rope_of(layer))
            pairs[f"window_of({layer})"] = (bare.window_of(layer), full.window_of(layer))
        # Lists of layers are compared by what they make of a layer; what is off has several forms.
        plain = (bool, int, float, str, Rope, type(None))
        wrong = [
            f"{name} = {ours!r:.200}, but {theirs!r:.200}"
            for name, (ours, theirs) in pairs.items()
            if isinstance(ours, plain) and isinstance(theirs, plain) and (ours or None) != (theirs or None)
        ]
        assert not wrong, f"{config_cls.__name__} has other defaults than Hugging Face's class: {'; '.join(wrong[:4])}"

    def test_the_package_under_test_is_the_installed_one(self, atb_lab: Lab) -> None:
        """Checks that the tests import the installed package."""
        here = importlib.import_module(package_of(atb_lab.package)).__file__
        installed = atb_lab.imports.file
        assert here == installed, f"these tests import {here}, but the installed package is {installed}"

    def test_listing_and_routing_import_no_torch(self, atb_lab: Lab) -> None:
        """Checks the libraries that router and configuration import."""
        named = ", ".join(f"{library} at {line}" for library, line in atb_lab.imports.heavy.items())
        assert not named, f"importing {', '.join(atb_lab.imports.modules)} imports {named}"

    def test_importing_the_package_takes_less_than_50_milliseconds(self, atb_lab: Lab) -> None:
        """Checks the time of the import."""
        seconds = atb_lab.imports.seconds
        assert seconds < BUDGET_SECONDS, f"{', '.join(atb_lab.imports.modules)} take {1000 * seconds:.0f} ms"

    def test_only_the_public_surface_of_core_is_imported(self, atb_lab: Lab) -> None:
        """Checks the package's imports from atb_core."""
        file = importlib.import_module(package_of(atb_lab.package)).__file__
        assert file is not None, f"{package_of(atb_lab.package)} is a package without __init__.py"
        private = private_imports(Path(file).parent)
        assert not private, "\n".join(map(str, private))
