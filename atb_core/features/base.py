# SPDX-License-Identifier: Apache-2.0
"""Features: additions to a model that may need a network of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from atb_core.errors import EngineError, GraphError
from atb_core.extensions import class_problem, refuse_uncalled

if TYPE_CHECKING:
    from atb_core.features.step import Step
    from atb_core.graph.arrays import Array
    from atb_core.graph.tensor import Tensor

#: Inputs, outputs or runtime parameters of a step by name, as features change them.
Arrays: TypeAlias = "MutableMapping[str, Array]"
#: Exactly one of these is part of every variant; `Step.phase` says which one a step needs.
BASE_FEATURES = ("prefill", "decode", "mixed")
_WRAPPERS = ("generate_engine_wrapper", "expand_engine_wrapper_collections")
#: In `feature_stackable_whitelist`: all features, those of other packages too.
ANY_FEATURE = "*"


class FeatureDecorator(ABC):
    """One feature on one model. Pass the class to `torch_to_mindie_graph`; it is created with the model.

    A step for which `is_activated` returns true runs in a variant of the network that is recorded with the feature's
    `variant_arguments` and `variant_inputs`, within `recording`, and with the outputs that `modify_outputs` leaves;
    `modify_inputs` changes the inputs of the step, and `constants` are those that stay. What a class declares is
    checked when a model is decorated with it, see `check_stacking`.
    """

    #: Unique name, part of the key of the variants that have the feature. A property that returns a constant, as in
    #: ATB-Models, is replaced by its value.
    feature_name: ClassVar[str]
    #: The features that this one may be added to: of `BASE_FEATURES` and of those listed before it, or `ANY_FEATURE`. A
    #: model has mixed steps only if all of its features stack on "mixed": those for which `Step.q_lens` makes no
    #: difference, or who read it.
    feature_stackable_whitelist: ClassVar[Sequence[str]] = ("prefill", "decode")
    #: The features without which this one does nothing useful; a step that activates it alone is refused.
    feature_requires: ClassVar[Sequence[str]] = ()
    #: The features that this one is never active with, each with the reason, which the refusal of a step tells.
    feature_conflicts: ClassVar[Mapping[str, str]] = {}
    #: True for a feature that runs the sequences of a step with the adapters that the step names.
    takes_adapters: ClassVar[bool] = False
    #: False for a feature that only changes inputs and needs no network of its own.
    need_additional_engine: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_uncalled(cls, dict.fromkeys(_WRAPPERS, "variant_arguments, variant_inputs or recording"))
        name = cls.__dict__.get("feature_name")
        if isinstance(name, property):
            try:
                cls.feature_name = name.fget(None)  # type: ignore[misc]
            except Exception as error:
                raise GraphError(
                    f"feature_name of {cls.__name__} is a property that reads the object: {error}",
                    hint="Return a constant, or make it a class attribute: feature_name = 'lora'.",
                ) from None

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    @abstractmethod
    def is_enabled(self) -> bool:
        """Returns true if the model was opened with this feature; others are never activated."""

    @abstractmethod
    def is_activated(self, meta: Step) -> bool:
        """Returns true for a step that needs the feature; must not change anything."""

    def is_stackable(self, features: Collection[str]) -> bool:
        """Returns true if the feature may be added to a variant that has `features`."""
        return self.stacking_problem(features) is None

    def stacking_problem(self, features: Collection[str]) -> str | None:
        """Returns why the feature cannot be added to a variant that has `features`, `None` if it can."""
        own, allowed = self.feature_name, self.feature_stackable_whitelist
        for name in features:
            if name in self.feature_conflicts:
                return f"the feature {own!r} does not stack on {name!r}: {self.feature_conflicts[name]}"
            if name not in allowed and (ANY_FEATURE not in allowed or name in BASE_FEATURES):
                return f"the feature {own!r} does not stack on {name!r}: it lists {', '.join(allowed)}"
        return None

    def variant_arguments(self) -> dict[str, Any]:
        """Returns further keyword arguments of the model's symbolic `forward`."""
        return {}

    def variant_inputs(self) -> dict[str, Tensor]:
        """Returns further inputs of the network, which `forward` also gets by name."""
        return {}

    def recording(self) -> AbstractContextManager[None]:
        """Returns a context in which the model's `forward` records the variant, for hooks into layers."""
        return nullcontext()

    def modify_outputs(self, outputs: MutableMapping[str, Tensor]) -> None:
        """Changes the outputs of the network in place, by name, while the variant is recorded."""
        return

    def constants(self, meta: Step) -> Mapping[str, Array]:
        """Returns inputs of the network that stay from step to step.

        They are bound when another mapping is returned than for the step before. Their values may be changed in place
        on engines that read them where they are, as the CPU's does.
        """
        return _NOTHING

    def modify_inputs(self, inputs: Arrays, outputs: Arrays, runtime_params: Arrays, meta: Step) -> None:
        """Changes a step's inputs, outputs and runtime parameters in place, before the engine gets them.

        Values are arrays of numpy or torch tensors (`atb_core.graph.arrays` converts), and those that are added may be
        either.
        """
        return


_NOTHING: Mapping[str, Array] = {}


def check_active(features: Sequence[FeatureDecorator], base: str) -> list[str]:
    """Returns the names of a variant: its base and those active features that need a network of their own.

    Raises:
        EngineError: two features do not stack, or one lacks another that it requires; tells the reason.
    """
    names, active = [base], {feature.feature_name for feature in features}
    for feature in features:
        missing = [name for name in feature.feature_requires if name not in active]
        problem = feature.stacking_problem(names)
        if problem is None and missing:
            problem = f"the feature {feature.feature_name!r} requires {missing[0]!r}, which the step does not activate"
        if problem is not None:
            raise EngineError(problem)
        if feature.need_additional_engine:
            names.append(feature.feature_name)
    return names


def check_stacking(features: Sequence[type[FeatureDecorator]]) -> None:
    """Checks that features may be listed together.

    Raises:
        GraphError: one is no concrete feature, has a name that is taken, stacks on no base variant, stacks on one that
            is listed after it, or requires one that is not listed before it or that it conflicts with.
    """
    names: list[str] = []
    for feature in features:
        if fault := class_problem(feature, FeatureDecorator):
            raise GraphError(fault)
        name = getattr(feature, "feature_name", None)
        if not isinstance(name, str) or not name:
            raise GraphError(f"the feature {feature.__name__} has no feature_name")
        if name in BASE_FEATURES or name in names:
            raise GraphError(f"the feature name {name!r} of {feature.__name__} is taken already")
        names.append(name)
    for index, feature in enumerate(features):
        if not set(feature.feature_stackable_whitelist) & set(BASE_FEATURES):
            raise GraphError(
                f"the feature {names[index]!r} stacks on none of {', '.join(BASE_FEATURES)}: it could never be used"
            )
        late = [name for name in names[index + 1 :] if name in feature.feature_stackable_whitelist]
        if late:
            raise GraphError(
                f"the feature {names[index]!r} stacks on {late[0]!r}, which is listed after it",
                hint=f"List {late[0]!r} before {names[index]!r}.",
            )
        for name in feature.feature_requires:
            stacks = name in feature.feature_stackable_whitelist or ANY_FEATURE in feature.feature_stackable_whitelist
            if name not in names[:index] or name in feature.feature_conflicts or not stacks:
                raise GraphError(
                    f"the feature {names[index]!r} requires {name!r}, which is not listed before it or which it does "
                    "not stack on"
                )
