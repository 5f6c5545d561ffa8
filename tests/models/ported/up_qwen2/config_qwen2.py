# SPDX-License-Identifier: Apache-2.0
"""The configuration, which takes what it knows from keyword arguments."""

# mypy: ignore-errors

from dataclasses import dataclass

from atb_core.models.base.config import BaseConfig
from atb_core.utils.log import logger


@dataclass
class Qwen2Config(BaseConfig):
    model_type = "qwen2"
    vocab_size: int = 151936
    num_key_value_heads: int = 32
    initializer_range: float = 0.02
    use_cache: bool = True
    use_sliding_window: bool = False
    sliding_window: int = 4096
    max_window_layers: int = 28
    attention_dropout: float = 0.0
    attention_bias: bool = True
    use_qk_norm: bool = False
    pdmix: bool = False

    def __init__(self, **kwargs):
        self.attribute_map = {"max_sequence_length": "max_position_embeddings", "epsilon": "rms_norm_eps"}
        super().__init__(**kwargs)
        if "num_key_value_heads" not in kwargs:
            self.num_key_value_heads = self.num_attention_heads
        if kwargs.get("rope_scaling") is not None:
            self.max_position_embeddings = 131072
        if self.pdmix and self.quantize == "w8a8":
            logger.warning("These weights were quantized by an old tool.")
            self.quantize = "w8a8_pdmix"
