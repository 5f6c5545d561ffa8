// SPDX-License-Identifier: Apache-2.0
// Lowering of every op to operations of ATB on both kinds of devices, and refusals. The operations are created and
// infer the shapes of their results; other tests compare numbers.
#include <algorithm>
#include <set>

#include "lowering_nodes.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;
using enum DataType;

namespace {

struct Minimal {
  Node node;
  const char* becomes;
};

// A product of integers with a result of this type, if it is one of a product.
Node quant_linear(DataType type) {
  const DataType out = type == f16 ? f16 : bf16;
  const Tensor scale{out == f16 ? i64 : f32, {48}, TensorKind::weight}, bias{i32, {48}, TensorKind::weight};
  return {"QuantLinear",
          {{"has_bias", true}},
          {{i8, {0, 64}}, {i8, {48, 64}, TensorKind::weight}, scale, bias},
          {{out, {0, 48}}}};
}

// At least one graph for each rule, in a type that the device supports.
std::vector<Minimal> minimal_graphs(DataType type) {
  const Tensor rows{type, {0, 64}};
  return {
      {linear(type), "Linear"},
      {{"BatchMatmul", {}, {{type, {3, 8, 32}}, {type, {3, 32, 16}}}, {{type, {3, 8, 16}}}}, "Linear"},
      {{"RmsNorm", {}, {rows, {type, {64}, TensorKind::weight}}, {rows}}, "RmsNorm"},
      {add_rms_norm(type, TensorKind::internal), "RmsNorm"},
      {layer_norm(type, 64), "LayerNorm"},
      {{"Rope", {}, {{type, {0, 128}}, rows, {type, {0, 32}}, {type, {0, 32}}, {i32, {3}}}, {{type, {0, 128}}, rows}},
       "Rope"},
      {self_attention(type, true), "SelfAttention"},
      {paged_attention(type), "PagedAttention"},
      {spec_attention(type), "PagedAttention"},
      {spec_attention_by_token(type), "PagedAttention"},
      {{"ReshapeAndCache",
        {},
        {{type, {0, 2, 64}}, {type, {0, 2, 64}}, {type, {9, 128, 2, 64}}, {type, {9, 128, 2, 64}}, {i32, {0}}},
        {}},
       "ReshapeAndCache"},
      {activation("ACTIVATION_SWIGLU_FORWARD", type), "Activation"},
      {elewise("ELEWISE_MUL", type, type, 2), "Elewise"},
      {elewise("ELEWISE_LESS", type, i8, 2), "Elewise"},
      {cast(type, f32), "Elewise"},
      {{"Gather", {{"axis", int64_t{-2}}}, {{type, {99, 16}}, {i64, {0}}}, {{type, {0, 16}}}}, "Gather"},
      {{"Concat", {{"concat_dim", int64_t{-1}}}, {rows, rows}, {{type, {0, 128}}}}, "Concat"},
      {split(type, {8, 24, 32}), "Split"},
      {{"Slice", {{"offsets", List{1, -16}}, {"size", List{2, -1}}}, {rows}, {{type, {2, 16}}}}, "Slice"},
      {{"Transpose", {{"perm", List{1, 2, 0}}}, {{type, {0, 4, 16}}}, {{type, {4, 16, 0}}}}, "Transpose"},
      {{"Repeat", {{"multiples", List{2, 1, 3}}}, {{type, {5, 16}}}, {{type, {2, 5, 48}}}}, "Repeat"},
      {{"Softmax", {{"axes", List{-1}}}, {rows}, {rows}}, "Softmax"},
      {{"Sort", {{"num", List{4}}}, {rows}, {{type, {0, 4}}, {i32, {0, 4}}}}, "Sort"},
      {reduce("REDUCE_SUM", type), "Reduce"},
      {{"AllReduce", {}, {rows}, {rows}}, "AllReduce"},
      {{"AllGather", {}, {rows}, {{type, {1, 0, 64}}}}, "AllGather"},
      {quant_linear(type), "Linear"},
      {gating(type), "Elewise, aclnnMoeGatingTopKSoftmaxV2"},
      {routing(type), "aclnnMoeInitRoutingV2, Elewise"},
      {grouped(type, true, false), "aclnnGroupedMatmulV4"},
      {unpermute(type), "aclnnMoeTokenUnpermute"},
      {{"QuantPerChannel", {}, {rows, {type, {1}, TensorKind::weight}, {i8, {1}, TensorKind::weight}}, {{i8, {0, 64}}}},
       "Elewise"},
      {{"DynamicQuant", {}, {rows}, {{i8, {0, 64}}, {f32, {0}}}}, "Elewise"},
      {rms_norm_quant(type, false), "RmsNorm"},
      {rms_norm_quant(type, true), "RmsNorm"},
      {{"LinearParallel", {}, {rows, {type, {32, 64}, TensorKind::weight}}, {{type, {0, 32}}}}, "LinearParallel"},
  };
}

// True if ATB accepts a graph of the op whose first input has this type.
bool takes(const std::string& op, DataType type) {
  std::vector<Minimal> graphs = minimal_graphs(type);
  for (const char* kind : {"ACTIVATION_GELU", "ACTIVATION_RELU"}) graphs.push_back({activation(kind, type), ""});
  graphs.push_back({elewise("ELEWISE_ADD", type, type, 2), ""});
  graphs.push_back({elewise("ELEWISE_LOGICAL_AND", type, type, 2), ""});
  for (DataType to : {type, i32, i64}) graphs.push_back({cast(type, to), ""});
  graphs.push_back({split(type, {16, 48}), ""});
  graphs.push_back({reduce("REDUCE_MAX", type), ""});
  return std::any_of(graphs.begin(), graphs.end(), [&](const Minimal& graph) {
    if (graph.node.op != op || graph.node.inputs[0].dtype != type) return false;
    try {
      return Lowered(graph.node, kA2).disagreement().empty();
    } catch (const Error&) {
      return false;
    }
  });
}

// Operations that ATB lacks on a 310P, and the advice of the refusal.
const char* missing_on_the_duo(const Node& node) {
  if (node.op == "LinearParallel") return "Linear and AllReduce";
  if (node.op.starts_with("Moe") || node.op == "GroupedMatmul") return "not on this device";
  const auto mask = node.attributes.find("mask_type");
  const bool square = mask != node.attributes.end() && mask->second == Attribute(Text("MASK_TYPE_NORM"));
  if (node.op == "PagedAttention" && square) return "MASK_TYPE_SPEC, [tokens, longest context]";
  return nullptr;
}

void check_minimal_graphs(DataType type, const char* soc) {
  std::set<std::string> seen;
  for (const Minimal& minimal : minimal_graphs(type)) {
    const bool half_only = type != f16 && minimal.node.op == "atb_quant.RmsNormQuant";
    const char* missing = half_only                  ? "ATB takes float16"
                          : std::string(soc) == kDuo ? missing_on_the_duo(minimal.node)
                                                     : nullptr;
    if (missing != nullptr) {
      CHECK_THROWS(Lowered(minimal.node, soc), missing);
      seen.insert(minimal.node.op);
      continue;
    }
    Lowered lowered(minimal.node, soc);
    const std::string what = minimal.node.op + " of " + std::string(name(type)) + " on " + soc + ": ";
    if (lowered.names() != minimal.becomes) report(__FILE__, __LINE__, what + lowered.names());
    const std::string wrong = lowered.disagreement();
    if (!wrong.empty()) report(__FILE__, __LINE__, what + wrong);
    seen.insert(minimal.node.op);
  }
  for (const LoweringRule& rule : lowering_rules()) {
    if (!seen.contains(rule.op)) report(__FILE__, __LINE__, std::string("no graph for ") + rule.op);
  }
}

}  // namespace

TEST(every_rule_lowers_a_small_graph_to_operations_that_give_its_shapes) {
  check_minimal_graphs(f16, kA2);
  check_minimal_graphs(bf16, kA2);
  check_minimal_graphs(f16, kDuo);
}

TEST(the_table_has_exactly_the_types_that_some_graph_of_the_op_takes) {
  for (const LoweringRule& rule : lowering_rules()) {
    for (DataType type : {f32, f16, bf16, i8, i32, i64, b8}) {
      const bool listed = std::find(rule.types.begin(), rule.types.end(), type) != rule.types.end();
      if (takes(rule.op, type) == listed) continue;
      report(__FILE__, __LINE__, std::string(rule.op) + " and " + std::string(name(type)));
    }
  }
}

TEST(the_table_names_each_op_once) {
  std::set<std::string> names;
  for (const LoweringRule& rule : lowering_rules()) {
    CHECK(names.insert(rule.op).second);
    CHECK(!rule.types.empty());
    CHECK(std::string(rule.becomes) != "");
  }
}

TEST(a_910B_multiplies_by_the_transpose_where_only_its_rows_come_out_even) {
  using Layouts = std::map<int, Layout>;
  const auto of = [](int64_t n, int64_t k, bool transposed, TensorKind kind) {
    Node node = linear(f16, {{"transpose_b", transposed}});
    node.inputs[0].shape[1] = k;
    node.inputs[1] = {f16, transposed ? List{n, k} : List{k, n}, kind};
    node.outputs[0].shape[1] = n;
    return node;
  };
  const Node uneven = of(256, 64, true, TensorKind::weight);
  Lowered turned(uneven, kA2);
  CHECK(turned.get().layouts() == (Layouts{{1, Layout::transposed}}) && turned.disagreement() == "");
  CHECK(Lowered(uneven, kDuo).get().layouts() == (Layouts{{1, Layout::nz}}));
  for (const Node& node : {of(256, 512, true, TensorKind::weight), of(240, 64, true, TensorKind::weight),
                           of(256, 64, false, TensorKind::weight), of(256, 64, true, TensorKind::input)}) {
    Lowered kept(node, kA2);
    CHECK(kept.get().layouts().empty() && kept.disagreement() == "");
  }
}

TEST(weights_that_do_not_fit_blocks_stay_in_rows) {
  Node odd = linear(f16);
  odd.inputs[1].shape = {40, 32};
  odd.outputs[0].shape = {0, 40};
  CHECK(Lowered(odd, kDuo).get().layouts().empty());
  Node computed = linear(f16);
  computed.inputs[1].kind = TensorKind::input;
  CHECK(Lowered(computed, kDuo).get().layouts().empty());
}

TEST(linear_knows_bias_transposition_and_three_dimensions) {
  Node biased = linear(f16, {{"has_bias", true}});
  biased.inputs.push_back({f16, {48}, TensorKind::weight});
  CHECK(names_of(biased) == "Linear");
  CHECK(names_of(biased, kDuo) == "Linear");
  biased.inputs[2].dtype = f32;
  CHECK(names_of(biased) == "Linear");
  REFUSED(biased, kDuo, "both must have one type");
  Node turned = linear(bf16, {{"transpose_b", false}});
  turned.inputs[1].shape = {32, 48};
  CHECK(names_of(turned) == "Linear");
  Node deep = linear(f16);
  deep.inputs[0].shape = {2, 0, 32};
  deep.outputs[0].shape = {2, 0, 48};
  CHECK(names_of(deep) == "Linear");
  CHECK(names_of(linear(f32)) == "Linear");
}

TEST(linear_keeps_the_type_of_x_and_says_so) {
  Node wide = linear(bf16);
  wide.outputs[0].dtype = f32;
  REFUSED(wide, kA2, "leave out_dtype away");
  Node deep = linear(f16);
  deep.inputs[0].shape = {2, 2, 0, 32};
  REFUSED(deep, kA2, "reshape x first");
  Node biased = linear(f32, {{"has_bias", true}});
  biased.inputs.push_back({f32, {48}, TensorKind::weight});
  REFUSED(biased, kA2, "no bias in float32");
  REFUSED(linear(f32), kDuo, "float16");
  Node turned = linear(f32, {{"transpose_b", false}});
  turned.inputs[1].shape = {32, 48};
  REFUSED(turned, kA2, "transpose the weight");
  Node batched = linear(f32);
  batched.inputs[0].shape = {2, 0, 32};
  batched.outputs[0].shape = {2, 0, 48};
  REFUSED(batched, kA2, "takes x of two dimensions, not 3");
  // No transposed copy of it either.
  Node uneven = linear(f32);
  uneven.inputs[1].shape = {256, 32};
  uneven.outputs[0].shape = {0, 256};
  Lowered kept(uneven, kA2);
  CHECK(kept.get().layouts().empty() && kept.disagreement() == "");
  REFUSED(linear(f16, {{"has_bias", true}}), kA2, "2 inputs, not 3");
}

TEST(products_of_batches_have_a_weight_for_each) {
  const auto of = [](DataType type, int64_t weights) {
    return Node{"BatchMatmul", {}, {{type, {3, 8, 32}}, {type, {weights, 32, 16}}}, {{type, {3, 8, 16}}}};
  };
  CHECK(names_of(of(bf16, 3)) == "Linear");
  REFUSED(of(f16, 1), kA2, "x has 3 batches and the weight 1");
  REFUSED(of(f32, 3), kA2, "ATB takes float16 or bfloat16");
}

TEST(the_sum_and_its_norm_come_without_the_deviation) {
  const Lowered lowered(add_rms_norm(f16, TensorKind::internal), kA2);
  CHECK((lowered.get().nodes()[0].outputs == std::vector<int>{lowered.get().out(0), lowered.get().out(2)}));
  REFUSED(add_rms_norm(f16, TensorKind::output), kA2, "rstd");
  Node narrow = {"RmsNorm", {}, {{f16, {0, 24}}, {f16, {24}, TensorKind::weight}}, {{f16, {0, 24}}}};
  REFUSED(narrow, kA2, "multiple of 32 bytes");
  narrow.attributes["epsilon"] = 0.0;
  narrow.inputs[0].shape = narrow.outputs[0].shape = {0, 32};
  narrow.inputs[1].shape = {32};
  REFUSED(narrow, kA2, "epsilon");
}

TEST(layer_norm_goes_over_rows_of_any_rank) {
  Node deep = layer_norm(bf16, 32);
  deep.inputs[0].shape = deep.outputs[0].shape = {2, 0, 32};
  CHECK(names_of(deep) == "LayerNorm" && names_of(layer_norm(f32, 24)) == "LayerNorm");
  REFUSED(layer_norm(f16, 24), kA2, "multiple of 32 bytes");
  REFUSED(layer_norm(f32, 32), kDuo, "no float32 there");
  Node mixed = layer_norm(f16, 32);
  mixed.inputs[1].dtype = mixed.inputs[2].dtype = f32;
  REFUSED(mixed, kA2, "the weight is float32");
}

TEST(casts_go_by_way_of_float32_and_a_cast_to_the_same_type_copies) {
  CHECK(names_of(cast(f32, f16)) == "Elewise");
  CHECK(names_of(cast(i32, i64)) == "Elewise");
  CHECK(names_of(cast(f16, bf16)) == "Elewise, Elewise");
  CHECK(names_of(cast(bf16, f16)) == "Elewise, Elewise");
  CHECK(names_of(cast(i32, i32)) == "Slice");
  REFUSED(cast(i64, i64), kA2, "leave the Cast away");
  REFUSED(cast(i32, f32), kA2, "not from int32 to float32");
  REFUSED(cast(f16, bf16), kDuo, "run the model in float16");
}

TEST(activations_take_the_types_that_atb_has_them_in) {
  for (const char* kind : {"ACTIVATION_GELU", "ACTIVATION_LOG", "ACTIVATION_SWIGLU_FORWARD"}) {
    for (DataType type : {f16, bf16, f32}) CHECK(names_of(activation(kind, type)) == "Activation");
  }
  for (const char* kind : {"ACTIVATION_FAST_GELU", "ACTIVATION_SWISH", "ACTIVATION_SIGMOID"}) {
    for (DataType type : {f16, bf16}) CHECK(names_of(activation(kind, type)) == "Activation");
    REFUSED(activation(kind, f32), kA2, "not float32");
  }
  CHECK(names_of(activation("ACTIVATION_RELU", bf16)) == "Activation");
  CHECK(names_of(activation("ACTIVATION_RELU", f16)) == "Elewise, Activation, Elewise");
}

TEST(swiglu_on_a_310P_takes_rows_in_steps_of_32) {
  const auto wide = [](int64_t width) {
    Node node = activation("ACTIVATION_SWIGLU_FORWARD", f16);
    node.inputs[0].shape[1] = width;
    node.outputs[0].shape[1] = width / 2;
    return node;
  };
  CHECK(names_of(wide(96), kDuo) == "Activation" && names_of(wide(80)) == "Activation");
  REFUSED(wide(80), kDuo, "a multiple of 32");
  Node gelu = activation("ACTIVATION_GELU", f16);
  gelu.inputs[0].shape[1] = gelu.outputs[0].shape[1] = 80;
  CHECK(names_of(gelu, kDuo) == "Activation");
}

TEST(arithmetic_takes_the_types_that_atb_has_it_in) {
  for (const char* kind : {"ELEWISE_ADD", "ELEWISE_REALDIV"}) CHECK(names_of(elewise(kind, f32, f32, 2)) == "Elewise");
  for (const char* kind : {"ELEWISE_MULS", "ELEWISE_COS", "ELEWISE_SIN"}) {
    CHECK(names_of(elewise(kind, f32, f32, 1)) == "Elewise");
  }
  for (const char* kind : {"ELEWISE_NEG", "ELEWISE_TANH"}) {
    CHECK(names_of(elewise(kind, f16, f16, 1)) == "Elewise");
    REFUSED(elewise(kind, f32, f32, 1), kA2, "run the model in float16");
  }
  for (const char* kind : {"ELEWISE_MUL", "ELEWISE_SUB"}) REFUSED(elewise(kind, f32, f32, 2), kA2, "not float32");
  CHECK(names_of(elewise("ELEWISE_ADD", i32, i32, 2)) == "Elewise");
  CHECK(names_of(elewise("ELEWISE_SUB", i64, i64, 2)) == "Elewise");
  for (const char* kind : {"ELEWISE_LESS", "ELEWISE_GREATER", "ELEWISE_EQUAL"}) {
    CHECK(names_of(elewise(kind, bf16, i8, 2)) == "Elewise");
  }
  REFUSED(elewise("ELEWISE_EQUAL", i64, i8, 2), kA2, "not int64");
  REFUSED(elewise("ELEWISE_LESS", f16, b8, 2), kA2, "ATB gives int8");
  for (const char* kind : {"ELEWISE_LOGICAL_AND", "ELEWISE_LOGICAL_OR"}) {
    CHECK(names_of(elewise(kind, i8, i8, 2)) == "Elewise");
  }
  CHECK(names_of(elewise("ELEWISE_LOGICAL_NOT", i8, i8, 1)) == "Elewise");
}

TEST(more_parts_than_split_has_are_cut_one_by_one_where_something_reads_them) {
  CHECK(names_of(split(f16, {16, 48})) == "Split");
  CHECK(names_of(split(i64, {16, 48})) == "Split");
  Node many = split(bf16, {16, 16, 16, 16});
  CHECK(names_of(many) == "Slice, Slice, Slice, Slice");
  many.outputs[1].kind = TensorKind::internal;
  CHECK(names_of(many) == "Slice, Slice, Slice");
  CHECK(names_of(split(f32, {16, 48})) == "Slice, Slice");
  REFUSED(split(i64, {16, 16, 16}), kA2, "cast x to int32");
  Node open = split(f16, {16, 48});
  open.attributes["split_sizes"] = List{};
  open.inputs[0].shape = {64, 0};
  REFUSED(open, kA2, "give split_sizes");
}

TEST(several_tensors_are_joined_one_after_another) {
  const Tensor rows{f16, {0, 64}};
  CHECK(names_of({"Concat", {{"concat_dim", int64_t{1}}}, {rows, rows, rows}, {{f16, {0, 192}}}}) == "Concat, Concat");
  REFUSED((Node{"Concat", {}, {rows}, {rows}}), kA2, "one tensor alone");
}

TEST(slices_from_the_end_need_a_size_that_is_known) {
  REFUSED((Node{"Slice", {{"offsets", List{-3}}, {"size", List{-1}}}, {{f16, {0, 16}}}, {{f16, {3, 16}}}}), kA2,
          "which is a symbol");
}

TEST(reductions_are_refused_where_atb_has_none) {
  CHECK(names_of(reduce("REDUCE_MAX", bf16)) == "Reduce");
  CHECK(names_of(reduce("REDUCE_MIN", i32)) == "Reduce");
  REFUSED(reduce("REDUCE_MAX", f16), kA2, "Sort, num [1]");
  REFUSED(reduce("REDUCE_SUM", i32), kA2, "not int32");
  CHECK(names_of(reduce("REDUCE_SUM", f16), kDuo) == "Reduce" && names_of(reduce("REDUCE_MAX", i32), kDuo) == "Reduce");
  Node whole = reduce("REDUCE_SUM", f16);
  whole.attributes["axis"] = List{0, 1};
  whole.outputs[0].shape = {};
  REFUSED(whole, kA2, "dimensions");
}

TEST(ranks_exchange_the_types_that_hccl_has) {
  const auto over_ranks = [](const char* op, DataType type, Attributes attributes = {}) {
    const bool gathers = Text(op) == "AllGather";
    return Node{op, attributes, {{type, {0, 64}}}, {gathers ? Tensor{type, {1, 0, 64}} : Tensor{type, {0, 64}}}};
  };
  for (const char* op : {"AllReduce", "AllGather"}) {
    CHECK(names_of(over_ranks(op, i64)) == op && names_of(over_ranks(op, i32), kDuo) == op);
    REFUSED(over_ranks(op, i32, {{"backend", Text("lcoc")}}), kA2, "LCOC is for LinearParallel alone");
    const Attributes two = {{"rank_size", int64_t{2}}};
    REFUSED(over_ranks(op, i32, two), kA2, "rank_size is 2 and the process sees 1 device");
    CHECK(Lowered(over_ranks(op, i32, with(two, "rank_table_file", Text("table.json"))), kA2).names() == op);
    ::atb::sim::set_devices(2);
    CHECK(Lowered(over_ranks(op, i32, two), kA2).names() == op);
    ::atb::sim::set_devices(1);
  }
  const Attributes lccl = {{"backend", Text("lccl")}};
  REFUSED(over_ranks("AllReduce", i64), kDuo, "HCCL has no int64 there");
  REFUSED(over_ranks("AllReduce", i64, lccl), kA2, "LCCL has no int64");
  CHECK(names_of(over_ranks("AllGather", i64), kDuo) == "AllGather");
  CHECK(names_of(over_ranks("AllGather", i64, lccl)) == "AllGather");
  const Attributes product = {{"all_reduce_type", Text("prod")}};
  CHECK(names_of(over_ranks("AllReduce", f16, product)) == "AllReduce");
  CHECK(names_of(over_ranks("AllReduce", f16, product), kDuo) == "AllReduce");
  REFUSED(over_ranks("AllReduce", bf16, product), kA2, "no product of bfloat16");
}

TEST(a_product_over_ranks_may_overlap_with_its_sum) {
  const auto of = [](int64_t ranks, const char* backend) {
    return Node{"LinearParallel",
                {{"rank_size", ranks}, {"backend", Text(backend)}, {"comm_mode", Text("COMM_MULTI_THREAD")}},
                {{f16, {0, 64}}, {f16, {32, 64}, TensorKind::weight}},
                {{f16, {0, 32}}}};
  };
  ::atb::sim::set_devices(4);
  CHECK(names_of(of(4, "lcoc")) == "LinearParallel" && names_of(of(3, "hccl")) == "LinearParallel");
  REFUSED(of(3, "lcoc"), kA2, "a power of two");
  REFUSED(of(4, "lcoc"), kDuo, "take Linear and AllReduce");
  ::atb::sim::set_devices(1);
}

TEST(types_that_an_op_or_a_device_lacks_are_refused_with_the_way_out) {
  REFUSED(paged_attention(f32), kA2, "run the model in float16 or bfloat16");
  REFUSED(paged_attention(bf16), kDuo, "run the model in float16");
  REFUSED((Node{"Transpose", {{"perm", List{1, 0}}}, {{f32, {0, 4}}}, {{f32, {4, 0}}}}), kA2, "input 0 is float32");
  REFUSED((Node{"Sort", {{"num", List{4}}}, {{f32, {0, 64}}}, {{f32, {0, 4}}, {i32, {0, 4}}}}), kDuo, "float16");
}

TEST(ops_without_a_rule_are_refused_with_what_to_do) {
  const Node argsort = {"Argsort", {}, {{f16, {0, 4}}}, {{i32, {0, 4}}}};
  REFUSED(argsort, kA2, "use Sort");
  const Node merged = {"MergedLinear",
                       {{"parts", int64_t{1}}, {"has_bias", false}},
                       {{f16, {0, 8}}, {f16, {8, 8}, TensorKind::weight}},
                       {{f16, {0, 8}}}};
  REFUSED(merged, kA2, "it gains nothing there");
}

TEST(a_scalar_is_refused) {
  REFUSED((Node{"Elewise", {{"elewise_type", Text("ELEWISE_COS")}}, {{f16, {}}}, {{f16, {}}}}), kA2, "0 dimensions");
}

TEST(devices_are_found_by_the_longest_prefix) {
  CHECK(std::string(find_device("Ascend910B4-1").name) == "Atlas A2");
  CHECK(std::string(find_device("Ascend910_9392").name) == "Atlas A3");
  CHECK(find_device("Ascend310P3").nz);
  CHECK(!find_device("Ascend310P3").bf16);
}

TEST(devices_that_are_not_supported_are_named) {
  for (const char* soc : {"Ascend910A", "Ascend910ProB", "Ascend910PremiumA", "Ascend910B"}) {
    CHECK_THROWS(find_device(soc), "Atlas A1");
  }
  CHECK_THROWS(find_device("Ascend950PR"), "Atlas A5");
  CHECK_THROWS(find_device("Ascend910_9589"), "Atlas A5");
  CHECK_THROWS(find_device("Ascend310B4"), "does not know the device 'Ascend310B4'");
  CHECK_THROWS(find_device(""), "Ascend910B*");
}

TEST_MAIN()
