# SPDX-License-Identifier: Apache-2.0
"""The configuration, which checks its own fields and raises ValueError."""

# mypy: ignore-errors

from dataclasses import dataclass
from typing import Optional

from atb_core.models.base.config import BaseConfig
from atb_core.utils.log import message_filter


@dataclass
class LlamaConfig(BaseConfig):
    model_type: str = "llama"
    alibi_bias_max: float = 8.0
    pe_type: str = "ROPE"
    skip_word_embedding: bool = False
    use_cache: bool = True
    num_key_value_heads: Optional[int] = None  # noqa: UP045
    rope_mscale: Optional[int] = None  # noqa: UP045
    pdmix: Optional[bool] = False  # noqa: UP045

    def __init__(self, **kwargs):
        self.attribute_map = {"max_sequence_length": "max_position_embeddings", "epsilon": "rms_norm_eps"}
        super().__init__(**kwargs)
        if "tie_word_embeddings" not in kwargs:
            self.tie_word_embeddings = False
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if kwargs.get("quantization_config") is not None:
            self.pdmix = kwargs["quantization_config"].get("pdmix", False)

    def validate(self):
        super().validate()
        self.__check_pe_type()

    def __check_pe_type(self):
        if self.pe_type not in ["ROPE", "ALIBI"]:
            raise ValueError(message_filter("`pe_type` must be one of ['ROPE', 'ALIBI']"))
