// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "atb_core/types.h"

namespace atb_core {

// The JSON parameter of DecoderModel. The fields are those of ATB-Models' decoder models. The sizes of vocabulary,
// hidden state and feed-forward layer are not among them: they follow from the weights.
struct DecoderParameters {
  bool is_prefill = false;
  DataType dtype = DataType::f16;
  bool float32_logits = false;  // logits are not rounded to dtype
  bool int8_cache = false;      // keys and values are integers with a scale for each head of a token
  bool packed_cache = false;    // engines may keep the cache in an order of their own
  double epsilon = 1e-5;
  int64_t layers = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;  // of this rank
  bool qk_norm = false;
  struct Biases {
    bool qkv = false, dense = false, gate_up = false, down = false;
  };
  std::vector<Biases> biases;  // of each layer

  // Throws Error naming the field that is missing, unknown, of the wrong type or not supported.
  static DecoderParameters from_json(const std::string& text);
};

}  // namespace atb_core
