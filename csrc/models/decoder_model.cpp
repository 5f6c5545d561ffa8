// SPDX-License-Identifier: Apache-2.0
#include "models/decoder_model.h"

#include <cmath>

namespace atb_core {
namespace {

const Size kTokens("tokens"), kHidden("hidden"), kVocab("vocab");

// The side of the triangular mask, an input of attention in prefill.
constexpr int64_t kMaskSize = 128;

}  // namespace

DecoderModel::DecoderModel(const std::string& param)
    : Model("DecoderModel"), param_(DecoderParameters::from_json(param)) {}

DecoderModel::Inputs DecoderModel::add_inputs(ModelGraph& graph) const {
  const Shape table = {Size("positions"), param_.head_dim};
  // In decode each sequence has one token.
  const Size sequences = param_.is_prefill ? Size("batch") : kTokens;
  Inputs inputs;
  inputs.ids = graph.input("input_ids", DataType::i64, {kTokens});
  inputs.positions = graph.input("position_ids", DataType::i64, {kTokens});
  inputs.cos_table = graph.input("cosine_table", param_.dtype, table);
  inputs.sin_table = graph.input("sine_table", param_.dtype, table);
  inputs.mask = graph.input("attention_mask", param_.dtype, {kMaskSize, kMaskSize});
  inputs.block_tables = graph.input("block_table", DataType::i32, {sequences, Size("max_blocks")});
  inputs.slots = graph.input("slots_mapping", DataType::i32, {kTokens});
  for (const char* name : {"kv_cache_idx", "token_offset", "place_holder"}) graph.input(name, DataType::i32, {});
  inputs.input_lengths = graph.input("seq_len", DataType::i32, {sequences});
  inputs.rows = graph.input("lm_head_indices", DataType::i64, {Size("rows")});
  return inputs;
}

void DecoderModel::BuildGraph(ModelGraph& graph) {
  const Inputs inputs = add_inputs(graph);
  graph.at("model.embed_tokens");
  const Value embedding = graph.weight("embed_tokens", param_.dtype, {kVocab, kHidden});
  Value hidden = graph.gather(embedding, inputs.ids);
  graph.at("model");
  const Rotary rotary = {graph.gather(inputs.cos_table, inputs.positions),
                         graph.gather(inputs.sin_table, inputs.positions)};
  for (int64_t i = 0; i < param_.layers; ++i) {
    graph.cut();
    hidden = layer(graph, i, hidden, inputs, rotary);
  }
  graph.cut();
  hidden = normed(graph, "model.norm", hidden, kHidden);
  graph.at("lm_head");
  if (param_.is_prefill) hidden = graph.gather(hidden, inputs.rows);
  const Value weight = graph.weight("lm_head", param_.dtype, {kVocab, kHidden});
  const DataType logits = param_.float32_logits ? DataType::f32 : param_.dtype;
  const ModelGraph::Attributes attributes = {{"transpose_a", false}, {"transpose_b", true}, {"has_bias", false}};
  const Shape shape = {graph.shape(hidden)[0], kVocab};
  graph.output(graph.op("Linear", attributes, {hidden, weight}, {shape}, logits)[0], "model_out");
}

Value DecoderModel::layer(ModelGraph& graph, int64_t index, Value hidden, const Inputs& inputs,
                          const Rotary& rotary) const {
  const std::string prefix = "model.layers." + std::to_string(index);
  const Value x = normed(graph, prefix + ".input_layernorm", hidden, kHidden);
  const Value attended = attention(graph, index, x, inputs, rotary);
  graph.at(prefix);
  const Value residual = graph.add(attended, hidden);
  const Value y = normed(graph, prefix + ".post_attention_layernorm", residual, kHidden);
  const Value out = feed_forward(graph, index, y);
  graph.at(prefix);
  return graph.add(out, residual);
}

Value DecoderModel::attention(ModelGraph& graph, int64_t index, Value x, const Inputs& inputs,
                              const Rotary& rotary) const {
  const DecoderParameters::Biases biases = param_.biases[static_cast<size_t>(index)];
  const std::string layer = std::to_string(index), prefix = "model.layers." + layer + ".self_attn";
  const int64_t heads = param_.heads, kv_heads = param_.kv_heads, dim = param_.head_dim;
  const DataType cached = param_.int8_cache ? DataType::i8 : param_.dtype;
  const Shape cache = {Size("blocks"), Size("block_size"), kv_heads, param_.int8_cache ? dim + 4 : dim};
  const Value k_cache = graph.cache("layer_" + layer + "_k_cache", cached, cache);
  const Value v_cache = graph.cache("layer_" + layer + "_v_cache", cached, cache);

  const Value packed = linear(graph, prefix + ".qkv", x, {(heads + 2 * kv_heads) * dim, kHidden}, biases.qkv);
  const std::vector<Value> parts = graph.split(packed, {heads * dim, kv_heads * dim, kv_heads * dim});
  Value q = parts[0], k = parts[1];
  if (param_.qk_norm) {
    q = normed_heads(graph, prefix + ".q_norm", q, heads);
    k = normed_heads(graph, prefix + ".k_norm", k, kv_heads);
  }
  graph.at(prefix);
  const std::vector<Value> turned = graph.rope(q, k, rotary.cos, rotary.sin, inputs.input_lengths);
  q = graph.reshape(turned[0], {kTokens, heads, dim});
  k = graph.reshape(turned[1], {kTokens, kv_heads, dim});
  const Value v = graph.reshape(parts[2], {kTokens, kv_heads, dim});
  graph.reshape_and_cache(k, v, k_cache, v_cache, inputs.slots, param_.packed_cache);
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  const Value out =
      param_.is_prefill
          ? graph.self_attention(q, k, v, inputs.mask, inputs.input_lengths, heads, kv_heads, scale, param_.int8_cache)
          : graph.paged_attention(q, k_cache, v_cache, inputs.block_tables, inputs.input_lengths, heads, kv_heads,
                                  scale, param_.packed_cache);
  const Value flat = graph.reshape(out, {kTokens, heads * dim});
  return linear(graph, prefix + ".dense", flat, {kHidden, heads * dim}, biases.dense);
}

Value DecoderModel::feed_forward(ModelGraph& graph, int64_t index, Value x) const {
  const DecoderParameters::Biases biases = param_.biases[static_cast<size_t>(index)];
  const std::string prefix = "model.layers." + std::to_string(index) + ".mlp";
  const Size inner("inner");
  const Value packed = linear(graph, prefix + ".gate_up", x, {Size("inner", 2), kHidden}, biases.gate_up);
  graph.at(prefix);
  const Value active = graph.swiglu(packed, inner);
  return linear(graph, prefix + ".down", active, {kHidden, inner}, biases.down);
}

Value DecoderModel::linear(ModelGraph& graph, const std::string& name, Value x, Shape shape, bool bias) const {
  graph.at(name);
  const Size outputs = shape[0];
  const Value weight = graph.weight(name + ".weight", param_.dtype, std::move(shape));
  return bias ? graph.linear(x, weight, graph.weight(name + ".bias", param_.dtype, {outputs}))
              : graph.linear(x, weight);
}

Value DecoderModel::normed(ModelGraph& graph, const std::string& name, Value x, Size size) const {
  graph.at(name);
  return graph.rms_norm(x, graph.weight(name, param_.dtype, {std::move(size)}), param_.epsilon);
}

Value DecoderModel::normed_heads(ModelGraph& graph, const std::string& name, Value x, int64_t heads) const {
  graph.at(name);
  const Value split = graph.reshape(x, {kTokens, heads, param_.head_dim});
  return graph.reshape(normed(graph, name, split, param_.head_dim), {kTokens, heads * param_.head_dim});
}

}  // namespace atb_core
