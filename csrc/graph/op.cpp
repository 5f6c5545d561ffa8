// SPDX-License-Identifier: Apache-2.0
#include "graph/op.h"

#include <map>
#include <mutex>
#include <shared_mutex>

#include "atb_core/error.h"

namespace atb_core {
namespace {

using List = std::vector<int64_t>;

std::vector<AttributeSpec> attention_attributes(const char* calc_type) {
  return {{"head_num", int64_t{0}, true},
          {"kv_head_num", int64_t{0}, true},
          {"q_scale", 1.0},
          {"qk_scale", 1.0},
          {"logits_soft_cap", 0.0},
          {"int8_kv", false},
          {"mask_type", std::string("MASK_TYPE_UNDEFINED")},
          {"calc_type", std::string(calc_type)}};
}

std::vector<AttributeSpec> group_attributes() {
  return {{"rank", int64_t{0}},
          {"rank_size", int64_t{1}},
          {"backend", std::string("hccl")},
          {"comm_mode", std::string("COMM_MULTI_PROCESS")},
          {"comm_domain", std::string()},
          {"rank_table_file", std::string()}};
}

std::vector<AttributeSpec> with(std::vector<AttributeSpec> attributes, AttributeSpec another) {
  attributes.push_back(std::move(another));
  return attributes;
}

std::vector<OpSignature> linear_signatures() {
  return {
      {"Linear", {2, 3}, {1, 1}, {{"transpose_a", false}, {"transpose_b", true}, {"has_bias", false}}},
      {"LinearSwiglu", {2, 3}, {1, 1}, {{"has_bias", false}}},
      {"BatchMatmul", {2, 2}, {1, 1}, {{"transpose_b", false}}},
      {"MergedLinear", {2, kAnyNumber}, {1, kAnyNumber}, {{"parts", int64_t{0}, true}, {"has_bias", false}}},
      {"Lora", {7, 7}, {1, 1}, {{"sizes", List{}, true}, {"first", int64_t{0}}}},
      {"SplitLinear", {2, 3}, {1, kAnyNumber}, {{"sizes", List{}, true}, {"has_bias", false}}},
  };
}

std::vector<OpSignature> quant_signatures() {
  const std::vector<AttributeSpec> product = {{"transpose_b", true}, {"has_token_scale", false}, {"has_bias", false}};
  return {
      {"QuantPerChannel", {3, 3}, {1, 1}},
      {"DynamicQuant", {1, 1}, {2, 2}},
      {"QuantLinear", {2, 5}, {1, 1}, product},
      {"QuantLinearSwiglu", {3, 5}, {1, 1}, product},
  };
}

std::vector<OpSignature> vector_signatures() {
  return {
      {"RmsNorm", {2, 2}, {1, 1}, {{"epsilon", 1e-5}}},
      {"LayerNorm", {3, 3}, {1, 1}, {{"epsilon", 1e-5}}},
      {"AddRmsNorm", {3, 3}, {3, 3}, {{"epsilon", 1e-5}}},
      {"atb_quant.RmsNormQuant", {5, 6}, {1, 2}, {{"epsilon", 1e-5}, {"has_residual", false}}},
      {"Rope", {5, 5}, {2, 2}, {{"rotary_coeff", int64_t{2}}}},
      {"Activation",
       {1, 1},
       {1, 1},
       {{"activation_type", std::string(), true},
        {"scale", 1.0},
        {"dim", int64_t{-1}},
        {"gelu_mode", std::string("TANH_MODE")}}},
      {"Elewise", {1, 2}, {1, 1}, {{"elewise_type", std::string(), true}, {"var_attr", 0.0}}},
      {"Softmax", {1, 1}, {1, 1}, {{"axes", List{-1}}}},
      {"Reduce", {1, 1}, {1, 1}, {{"reduce_type", std::string(), true}, {"axis", List{}, true}}},
      {"Cast", {1, 1}, {1, 1}, {{"dtype", std::string(), true}}},
  };
}

std::vector<OpSignature> attention_signatures() {
  return {
      {"SelfAttention", {4, 5}, {1, 1}, with(attention_attributes("PA_ENCODER"), {"is_triu_mask", false})},
      {"PagedAttention", {5, 7}, {1, 1}, with(attention_attributes("CALC_TYPE_UNDEFINED"), {"packed_kv", false})},
      {"ReshapeAndCache", {5, 5}, {0, 0}, {{"int8_kv", false}, {"packed_kv", false}}, {2, 3}},
  };
}

std::vector<OpSignature> movement_signatures() {
  return {
      {"Gather", {2, 2}, {1, 1}, {{"axis", int64_t{0}}, {"batch_dims", int64_t{0}}}},
      {"Split",
       {1, 1},
       {1, kAnyNumber},
       {{"split_dim", int64_t{0}}, {"split_num", int64_t{2}}, {"split_sizes", List{}}}},
      {"Concat", {1, kAnyNumber}, {1, 1}, {{"concat_dim", int64_t{0}}}},
      {"Slice", {1, 1}, {1, 1}, {{"offsets", List{}, true}, {"size", List{}, true}}},
      {"Transpose", {1, 1}, {1, 1}, {{"perm", List{}, true}}},
      {"Repeat", {1, 1}, {1, 1}, {{"multiples", List{}, true}}},
      {.name = "Reshape", .inputs = {1, 1}, .outputs = {1, 1}, .always_view = true},
      {"Assign", {2, 2}, {0, 0}, {}, {1}},
      {"Sort", {1, 1}, {2, 2}, {{"num", List{}, true}}},
      {"Argsort", {1, 1}, {1, 1}},
  };
}

std::vector<OpSignature> moe_signatures() {
  return {
      {"MoeTopkSoftmax", {1, 1}, {3, 3}, {{"topk_num", int64_t{0}, true}, {"normalize", false}}},
      {"MoeInitRouting", {2, 2}, {3, 3}, {{"topk_num", int64_t{0}, true}, {"expert_num", int64_t{0}, true}}},
      {"GroupedMatmul", {3, 4}, {1, 1}, {{"transpose_b", false}, {"has_bias", false}}},
      {"MoeTokenUnpermute", {3, 3}, {1, 1}},
  };
}

std::vector<OpSignature> comm_signatures() {
  return {
      {"AllReduce", {1, 1}, {1, 1}, with(group_attributes(), {"all_reduce_type", std::string("sum")})},
      {"AllGather", {1, 1}, {1, 1}, group_attributes()},
      {"LinearParallel", {2, 2}, {1, 1}, with(group_attributes(), {"trans_weight", true})},
  };
}

// Signatures by name. Graphs point into the map, so nothing is ever removed.
struct Registry {
  Registry() {
    for (const auto& family : {linear_signatures(), quant_signatures(), vector_signatures(), attention_signatures(),
                               movement_signatures(), moe_signatures(), comm_signatures()}) {
      for (const OpSignature& op : family) ops.emplace(op.name, op);
    }
  }

  std::shared_mutex mutex;
  std::map<std::string, OpSignature, std::less<>> ops;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

const OpSignature* find_op(std::string_view name) {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  const auto found = all.ops.find(name);
  return found == all.ops.end() ? nullptr : &found->second;
}

void add_op(OpSignature signature) {
  Registry& all = registry();
  const std::unique_lock lock(all.mutex);
  const std::string name = signature.name;
  const auto [place, is_new] = all.ops.try_emplace(name, std::move(signature));
  if (is_new) return;
  // Only custom ops accept any attributes.
  if (place->second.any_attributes) fail("there is an op ", name, " already");
  fail("the engine has an op ", name, " of its own");
}

std::vector<std::string> op_names() {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  std::vector<std::string> names;
  for (const auto& [name, op] : all.ops) names.push_back(name);
  return names;
}

}  // namespace atb_core
