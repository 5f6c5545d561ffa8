// SPDX-License-Identifier: Apache-2.0
// Nodes of the ops as a graph has them, for tests of what they become on a device.
#pragma once

#include "atb_lowered.h"

namespace atb_core::test {

using namespace atb_core::ascend;
using enum DataType;

constexpr const char* kA2 = "Ascend910B2";
constexpr const char* kDuo = "Ascend310P3";

using List = std::vector<int64_t>;
using Text = std::string;

inline Attributes heads(int64_t count, int64_t kv_count) { return {{"head_num", count}, {"kv_head_num", kv_count}}; }

inline Attributes with(Attributes attributes, std::string name, Attribute value) {
  attributes.insert_or_assign(std::move(name), std::move(value));
  return attributes;
}

inline Node linear(DataType type, Attributes attributes = {}) {
  return {"Linear", std::move(attributes), {{type, {0, 32}}, {type, {48, 32}, TensorKind::weight}}, {{type, {0, 48}}}};
}

inline Node self_attention(DataType type, bool causal) {
  Node node{"SelfAttention",
            with(heads(4, 2), "is_triu_mask", causal),
            {{type, {0, 4, 64}}, {type, {0, 2, 64}}, {type, {0, 2, 64}}, {type, {128, 128}}, {i32, {3}}},
            {{type, {0, 4, 64}}}};
  node.attributes["mask_type"] = Text("MASK_TYPE_NORM");
  return node;
}

inline Node rms_norm_quant(DataType type, bool residual) {
  Node node{"atb_quant.RmsNormQuant",
            {{"has_residual", residual}},
            {{type, {0, 64}}, {type, {64}}, {type, {64}}, {type, {1}}, {DataType::i8, {1}}},
            {{DataType::i8, {0, 64}}}};
  if (!residual) return node;
  node.inputs.insert(node.inputs.begin() + 1, {type, {0, 64}});
  node.outputs.push_back({type, {0, 64}});
  return node;
}

inline Node paged_attention(DataType type) {
  return {"PagedAttention",
          heads(4, 2),
          {{type, {0, 4, 64}}, {type, {9, 128, 2, 64}}, {type, {9, 128, 2, 64}}, {i32, {0, 5}}, {i32, {0}}},
          {{type, {0, 4, 64}}}};
}

inline Node spec_attention(DataType type) {
  Node node = paged_attention(type);
  node.attributes["calc_type"] = Text("CALC_TYPE_SPEC");
  node.attributes["mask_type"] = Text("MASK_TYPE_NORM");
  node.inputs.push_back({type, {256, 256}});
  node.inputs.push_back({i32, {3}});
  node.inputs[3].shape = {3, 5};
  node.inputs[4].shape = {3};
  return node;
}

inline Node spec_attention_by_token(DataType type) {
  Node node = spec_attention(type);
  node.attributes["mask_type"] = Text("MASK_TYPE_SPEC");
  node.inputs[5].shape = {0, 256};
  return node;
}

inline Node add_rms_norm(DataType type, TensorKind rstd) {
  return {"AddRmsNorm",
          {},
          {{type, {0, 64}}, {type, {0, 64}}, {type, {64}, TensorKind::weight}},
          {{type, {0, 64}}, {f32, {0, 1}, rstd}, {type, {0, 64}}}};
}

inline Node layer_norm(DataType type, int64_t width) {
  const Tensor weight{type, {width}, TensorKind::weight};
  return {"LayerNorm", {}, {{type, {0, width}}, weight, weight}, {{type, {0, width}}}};
}

inline Node elewise(const char* kind, DataType type, DataType result, int inputs) {
  const std::vector<Tensor> operands(static_cast<size_t>(inputs), {type, {0, 16}});
  return {"Elewise", {{"elewise_type", Text(kind)}, {"var_attr", 2.0}}, operands, {{result, {0, 16}}}};
}

inline Node activation(const char* kind, DataType type) {
  const bool halves = Text(kind) == "ACTIVATION_SWIGLU_FORWARD";
  return {"Activation", {{"activation_type", Text(kind)}}, {{type, {0, 64}}}, {{type, {0, halves ? 32 : 64}}}};
}

inline Node cast(DataType from, DataType to) {
  return {"Cast", {{"dtype", Text(name(to))}}, {{from, {0, 16}}}, {{to, {0, 16}}}};
}

inline Node split(DataType type, List sizes) {
  Node node{"Split", {{"split_dim", int64_t{-1}}, {"split_sizes", sizes}}, {{type, {0, 0}}}, {}};
  int64_t whole = 0;
  for (int64_t size : sizes) {
    whole += size;
    node.outputs.push_back({type, {0, size}});
  }
  node.inputs[0].shape[1] = whole;
  return node;
}

inline Node reduce(const char* kind, DataType type) {
  return {"Reduce", {{"reduce_type", Text(kind)}, {"axis", List{-1}}}, {{type, {0, 16}}}, {{type, {0}}}};
}

inline Node gating(DataType type, int64_t chosen = 2) {
  const Tensor choices{i32, {0, chosen}};
  return {"MoeTopkSoftmax",
          {{"topk_num", chosen}},
          {{type, {0, 1536}}},
          {{f32, {0, chosen}}, choices, {i32, {0, chosen}, TensorKind::internal}}};
}

inline Node routing(DataType type) {
  return {"MoeInitRouting",
          {{"topk_num", int64_t{2}}, {"expert_num", int64_t{8}}},
          {{type, {48, 64}}, {i32, {48, 2}}},
          {{type, {96, 64}}, {i32, {96}}, {i64, {8}}}};
}

inline Node grouped(DataType type, bool transpose, bool bias, int64_t experts = 8) {
  const List shape = transpose ? List{experts, 32, 64} : List{experts, 64, 32};
  Node node{"GroupedMatmul",
            {{"transpose_b", transpose}, {"has_bias", bias}},
            {{type, {0, 64}}, {type, shape, TensorKind::weight}},
            {{type, {0, 32}}}};
  if (bias) node.inputs.push_back({type, {experts, 32}, TensorKind::weight});
  node.inputs.push_back({i64, {experts}});
  return node;
}

inline Node unpermute(DataType type, int64_t chosen = 2) {
  return {
      "MoeTokenUnpermute", {}, {{type, {2 * chosen, 64}}, {i32, {2 * chosen}}, {f32, {2, chosen}}}, {{type, {2, 64}}}};
}

// Names of the operations that a node becomes; reports shapes that disagree.
inline std::string names_of(const Node& node, const char* soc = kA2) {
  Lowered lowered(node, soc);
  const std::string what = lowered.disagreement();
  if (!what.empty()) report(__FILE__, __LINE__, node.op + ": " + what);
  return lowered.names();
}

}  // namespace atb_core::test
