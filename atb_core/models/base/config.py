# SPDX-License-Identifier: Apache-2.0
"""Configurations of models: the fields of `config.json` that models read, checked before anything is built."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

from atb_core.errors import ConfigError, shown
from atb_core.graph.dtype import DataType
from atb_core.models.base.config_fields import refuse_unread, unread_fields
from atb_core.models.runtime.rope_scaling import Rope, RopeScaling, check_number
from atb_core.names import DTYPES

__all__ = ["BaseConfig", "LayerHeads", "Rope"]

ConfigT = TypeVar("ConfigT", bound="BaseConfig")

# Types of the class attributes that become fields.
_PLAIN = (bool, int, float, str, list, dict, set, tuple, type(None))


class LayerHeads(NamedTuple):
    """The numbers of heads of queries and of keys and values in one layer, and the elements of a head."""

    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass
class BaseConfig:
    """The fields that every dense decoder has; families add theirs, annotated or as bare class attributes.

    `int_limits`, `flags` and `spellings` of a family are added to those of its bases.

    `num_key_value_heads` and `head_dim` may be `None` in `config.json`; after construction they are set.
    Sizes are in elements, `max_position_embeddings` in tokens. `torch_dtype` is float32 by default, as in Hugging Face.
    """

    #: Lowest and highest value of each integer. A config.json is untrusted: the limits are a few times those of the
    #: largest published models, so that an absurd value is refused by name and not by a failed allocation.
    int_limits: ClassVar[dict[str, tuple[int, int]]] = {
        "vocab_size": (1, 4_194_304), "hidden_size": (1, 131_072), "intermediate_size": (1, 1_048_576),
        "num_hidden_layers": (1, 1_024), "num_attention_heads": (1, 1_024), "num_key_value_heads": (1, 1_024),
        "head_dim": (2, 1_024), "max_position_embeddings": (1, 2**27),
    }  # fmt: skip
    #: Fields that are true or false.
    flags: ClassVar[tuple[str, ...]] = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_qk_norm")
    #: The values of `hidden_act` that the family's layers compute; `Mlp` has more, which a family may add.
    activations: ClassVar[tuple[str, ...]] = ("silu", "swish")
    #: Further spellings of a key: newer ones, and those of ATB-Models' attribute map.
    spellings: ClassVar[dict[str, str]] = {"max_sequence_length": "max_position_embeddings", "epsilon": "rms_norm_eps"}

    model_type: str = ""
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    mlp_bias: bool = False
    use_qk_norm: bool = False
    tie_word_embeddings: bool = False
    torch_dtype: str = "float32"
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    quantization_config: dict[str, Any] | None = None
    quantize: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes fields of bare class attributes: `vocab_size = 1000` without an annotation."""
        super().__init_subclass__(**kwargs)
        annotations = dict(inspect.get_annotations(cls))
        inherited = {f.name: f.type for f in dataclasses.fields(cls)}
        class_variables = set(cls.__dataclass_fields__) - set(inherited)
        for name, value in list(cls.__dict__.items()):
            if name.startswith("_") or name in annotations or name in class_variables:
                continue
            if not isinstance(value, _PLAIN):  # a method, property or nested class
                continue
            annotations[name] = inherited.get(name, type(value).__name__)
            if isinstance(value, (list, dict, set)):
                setattr(cls, name, field(default_factory=functools.partial(copy.deepcopy, value)))
        cls.__annotations__ = annotations

    def __post_init__(self) -> None:
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if isinstance(self.rope_scaling, Mapping):
            self.rope_scaling = RopeScaling.from_dict(self.rope_scaling)
        if self.head_dim is None:
            heads, hidden = self.num_attention_heads, self.hidden_size
            # validate() names a size that does not divide.
            if type(heads) is int and type(hidden) is int and heads > 0 and hidden % heads == 0:
                self.head_dim = hidden // heads

    @classmethod
    def from_dict(cls: type[ConfigT], config_dict: Mapping[str, Any]) -> ConfigT:
        """Returns a checked configuration from the contents of `config.json`.

        A field that the class does not have is left out if it is known to be without meaning for inference, or is off
        (`None`, false, empty, a neutral number); see `config_fields`.

        Raises:
            ConfigError: a value is of the wrong type or out of range; names field, value and allowed range. Or a field
                changes the model and the class does not have it.
        """
        try:
            config, values = cls._made_of(config_dict)
            config.validate()
        except ConfigError as error:
            raise ConfigError(cls._as_written(error.message, config_dict), hint=error.hint) from None
        refuse_unread(config, values)
        return config

    @classmethod
    def _as_written(cls, message: str, config_dict: Mapping[str, Any]) -> str:
        """Returns a message that begins with a field, with the key that the file has for it."""
        for key, old in {**cls._merged("spellings"), "rope_parameters": "rope_scaling", "dtype": "torch_dtype"}.items():
            hidden = key != "dtype" and config_dict.get(old)
            if message.startswith(f"{old} ") and config_dict.get(key) is not None and not hidden:
                return message.replace(old, key, 1)
        return message

    @classmethod
    def unread_fields(cls, config_dict: Mapping[str, Any], numbers: bool = True) -> dict[str, Any]:
        """Returns the fields of a `config.json` that change the model and that the class does not have.

        With `numbers` false, numbers that have no effect are among them, such as a multiplier of 1.
        """
        return unread_fields(*cls._made_of(config_dict), numbers)

    @classmethod
    def _made_of(cls: type[ConfigT], config_dict: Mapping[str, Any]) -> tuple[ConfigT, dict[str, Any]]:
        """Returns an unchecked configuration, and the fields under the names of the class."""
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
        values = _normalized(config_dict, cls._merged("spellings"), set(fields))
        for name in sorted(fields.keys() & config_dict.keys() - values.keys() - {"torch_dtype"}):
            # An explicit null turns off what a family has on; what every model needs, it cannot.
            optional = "None" in str(fields[name].type) or name not in BaseConfig.__dataclass_fields__
            if not optional:
                raise ConfigError(f"{name} = null must have a value", hint="Without it, its default counts.")
            if fields[name].default is not dataclasses.MISSING:  # of a list, null is the default
                values[name] = None
        return cls(**{key: value for key, value in values.items() if key in fields}), values

    @classmethod
    def _merged(cls, attribute: str) -> dict[str, Any]:
        """Returns the tables of the class and its bases under `attribute`, as one."""
        tables = [vars(base)[attribute] for base in reversed(cls.__mro__) if attribute in vars(base)]
        return {key: value for table in tables for key, value in table.items()}

    def validate(self) -> None:
        """Raises ConfigError for the first field that has an impossible value."""
        for name, (low, high) in self._merged("int_limits").items():
            if name == "head_dim" and self.head_dim is None:
                raise ConfigError(
                    f"hidden_size = {self.hidden_size} is not a multiple of "
                    f"num_attention_heads = {self.num_attention_heads}",
                    hint="Give head_dim when heads do not divide the hidden size.",
                )
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigError(f"{name} = {shown(value)} must be an integer from {low} to {high}")
        for name in dict.fromkeys(name for base in type(self).__mro__ for name in vars(base).get("flags", ())):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} = {shown(getattr(self, name))} must be true or false")
        assert self.head_dim is not None
        assert self.num_key_value_heads is not None
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads = {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads = {self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim = {self.head_dim} must be even: rotary embedding rotates pairs")
        check_number("rms_norm_eps", self.rms_norm_eps, 0.0, 1.0)
        check_number("rope_theta", self.rope_theta, 1.0, 1.0e15)
        for name, allowed in (("hidden_act", self.activations), ("torch_dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} = {shown(getattr(self, name))} is not supported", hint=f"Supported: {', '.join(allowed)}."
                )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = getattr(self, name)
            # Special tokens may lie above the vocabulary, so only their type is checked.
            if ids is not None and not all(
                type(i) is int and i >= -1 for i in (ids if isinstance(ids, list) else [ids])
            ):
                raise ConfigError(f"{name} = {ids!r} must be a token id or a list of token ids")
        if self.rope_scaling is not None:
            if not isinstance(self.rope_scaling, RopeScaling):
                raise ConfigError(f"rope_scaling = {shown(self.rope_scaling)} must be an object")
            self.rope_scaling.validate()

    @property
    def data_type(self) -> DataType:
        """Returns `torch_dtype` as the element type that networks use."""
        return DataType.from_short(self.torch_dtype)

    @property
    def context_length(self) -> int:
        """Returns the longest sequence that the model supports, in tokens, scaling of positions included."""
        by_kind = getattr(self, "rope_parameters", None)
        kinds = [kind for kind in by_kind.values() if isinstance(kind, Mapping)] if isinstance(by_kind, Mapping) else []
        return max(rope.context_length for rope in ([self.rope(kind) for kind in kinds] or [self.rope()]))

    def rope(
        self, parameters: Mapping[str, Any] | None = None, *, interleaved: bool = False, head_dim: int | None = None
    ) -> Rope:
        """Returns settings of rotary embedding.

        Args:
            parameters: such as one of `rope_parameters` for a kind of layer; by default the configuration's own fields.
            interleaved: see `Rope`.
            head_dim: of layers whose heads have a size of their own.
        """
        values = {} if parameters is None else _rope_values({"rope_scaling": parameters}, set())
        scaling = self.rope_scaling if parameters is None else values["rope_scaling"]
        part = values.get("partial_rotary_factor", getattr(self, "partial_rotary_factor", 1.0))
        check_number("partial_rotary_factor", part, 0.0, 1.0)
        size, theta = int((head_dim or self.head_dim or 0) * part), values.get("rope_theta", self.rope_theta)
        if size < 2 or size % 2:
            raise ConfigError(
                f"partial_rotary_factor = {part} rotates {size} elements of a head; it must be an even number"
            )
        check_number("rope_theta", theta, 1.0, 1.0e15)
        return Rope(size, theta, self.max_position_embeddings, scaling or RopeScaling(), interleaved)

    def rope_of(self, layer_idx: int) -> Rope | None:
        """Returns the settings of layer `layer_idx`; `None` if it rotates nothing. A family overrides this.

        A `partial_rotary_factor` counts if the family's class has the field.
        """
        heads = self.heads_of(layer_idx)
        return self.rope(head_dim=None if heads is None else heads.head_dim)

    def heads_of(self, layer_idx: int) -> LayerHeads | None:
        """Returns the heads of layer `layer_idx`; `None` if they are the configuration's.

        A family whose layers differ in heads overrides this.
        """
        return None

    def window_of(self, layer_idx: int) -> int | None:
        """Returns the number of tokens that a token of layer `layer_idx` sees, itself included; `None` for all.

        A family whose layers have a window overrides this, or derives from `WindowConfig`.
        """
        return None

    def replace(self: ConfigT, **changes: Any) -> ConfigT:
        """Returns a checked copy with some fields changed."""
        config = dataclasses.replace(self, **changes)
        config.validate()
        return config


_generated_init = BaseConfig.__init__


@functools.wraps(_generated_init)
def _init(self: BaseConfig, *args: Any, **kwargs: Any) -> None:
    # A subclass with an `__init__(self, **kwargs)` passes the fields that it adds, too.
    own = type(self).__dataclass_fields__.keys() - BaseConfig.__dataclass_fields__.keys()
    for name in own & kwargs.keys():
        setattr(self, name, kwargs.pop(name))
    _generated_init(self, *args, **kwargs)


BaseConfig.__init__ = _init  # type: ignore[method-assign]


def _normalized(config_dict: Mapping[str, Any], spellings: Mapping[str, str], names: set[str]) -> dict[str, Any]:
    """Returns the values under the names of a class's fields; drops `None`."""
    values = {key: value for key, value in config_dict.items() if value is not None}
    # Hugging Face reads the newer spelling where a file has both.
    values["torch_dtype"] = values.pop("dtype", values.get("torch_dtype"))
    for new, old in spellings.items():
        if new in values and new not in names:
            value = values.pop(new)
            if values.setdefault(old, value) != value:
                raise ConfigError(f"{new} = {shown(value)} and {old} = {shown(values[old])} contradict each other")
    if isinstance(values["torch_dtype"], str):
        values["torch_dtype"] = values["torch_dtype"].removeprefix("torch.")
    return {key: value for key, value in {**values, **_rope_values(values, names)}.items() if value is not None}


def _rope_values(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Returns the rotary settings under the names of fields: `rope_theta`, `partial_rotary_factor`, `rope_scaling`."""
    # Hugging Face takes `rope_scaling` as a whole where a file has both.
    spelling = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(spelling)
    if rope is None:
        return {}
    if not isinstance(rope, Mapping):
        raise ConfigError(f"{spelling} = {shown(rope)} must be an object")
    if any(isinstance(value, Mapping) for value in rope.values()):
        # Settings of their own for each kind of layer: for a family that has the field.
        return {"rope_scaling": None, "rope_parameters": rope}
    lifted = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if rope.get(name) is not None}
    original = values.get("original_max_position_embeddings")
    more = {} if original is None else {"original_max_position_embeddings": original}
    scaling = RopeScaling.from_dict({**rope, **more})
    consumed = dict.fromkeys({"rope_parameters", "original_max_position_embeddings"} - names)
    return {**lifted, **consumed, "rope_scaling": None if scaling.rope_type == "default" else scaling}
