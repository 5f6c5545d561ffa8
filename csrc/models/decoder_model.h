// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "atb_core/model.h"
#include "models/decoder_parameters.h"

namespace atb_core {

// The decoder-only transformer of llama-like families: embedding, rotary tables, layers, norm, output matrix. Packages
// register it from Python under names of their own, with defaults.
//
// Weights, in this order: embedding [vocab, hidden]; for each layer input norm [hidden], qkv [q + 2 kv, hidden] and its
// bias, with q/k norm those two [head_dim], dense [hidden, q] and its bias, norm after attention [hidden], gate_up
// [2 inner, hidden] and its bias, down [hidden, inner] and its bias; norm [hidden]; output matrix [vocab, hidden].
// 'linearHasBias' says which biases exist.
//
// Inputs, in this order and with the names of ATB-Models' decoders: input_ids [tokens] i64, position_ids [tokens] i64,
// cosine_table and sine_table [positions, head_dim], attention_mask [128, 128] (prefill), block_table [tokens, blocks]
// i32 (decode), slots_mapping [tokens] i32, three inputs of a cache without pages, which are not read, seq_len [batch]
// i32, lm_head_indices [rows] i64 (prefill). Output: logits [rows, vocab].
class DecoderModel : public Model {
 public:
  explicit DecoderModel(const std::string& param);

 protected:
  void BuildGraph(ModelGraph& graph) override;

 private:
  struct Inputs {
    Value ids, positions, cos_table, sin_table, mask, block_tables, slots, input_lengths, rows;
  };
  struct Rotary {
    Value cos, sin;
  };

  Inputs add_inputs(ModelGraph& graph) const;
  Value layer(ModelGraph& graph, int64_t index, Value hidden, const Inputs& inputs, const Rotary& rotary) const;
  Value attention(ModelGraph& graph, int64_t index, Value x, const Inputs& inputs, const Rotary& rotary) const;
  Value feed_forward(ModelGraph& graph, int64_t index, Value x) const;
  Value linear(ModelGraph& graph, const std::string& name, Value x, Shape shape, bool bias) const;
  Value normed(ModelGraph& graph, const std::string& name, Value x, Size size) const;
  Value normed_heads(ModelGraph& graph, const std::string& name, Value x, int64_t heads) const;

  const DecoderParameters param_;
};

}  // namespace atb_core
