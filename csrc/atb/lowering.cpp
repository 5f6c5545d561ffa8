// SPDX-License-Identifier: Apache-2.0
#include "atb/lowering.h"

#include <algorithm>
#include <utility>

#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using enum DataType;

// Ops without a rule, and the advice for each.
constexpr std::pair<std::string_view, const char*> kWithout[] = {
    {"LinearSwiglu", "it has none for both together: build the graph without the pass LinearSwiglu"},
    {"QuantLinearSwiglu", "it has none for both together: build the graph without the pass QuantLinearSwiglu"},
    {"MergedLinear", "it gains nothing there: build the graph without the pass merge_linears"},
    {"SplitLinear", "it gains nothing there: build the graph without the pass split_linear"},
    {"Argsort", "ATB sorts downwards only: use Sort"},
    {"Assign", "ATB has no operation that writes a whole tensor: make the value an output of the network"},
};

std::string known_ops() {
  std::string text;
  for (const LoweringRule& rule : lowering_rules()) text += (text.empty() ? "" : ", ") + std::string(rule.op);
  return text;
}

const LoweringRule& rule_for(const Lowering& l, std::string_view op) {
  const auto& rules = lowering_rules();
  const auto found = std::find_if(rules.begin(), rules.end(), [&](const LoweringRule& rule) { return rule.op == op; });
  if (found != rules.end()) return *found;
  for (const auto& [name, why] : kWithout) {
    if (name == op) l.refuse(why);
  }
  l.refuse("ATB has no such operation; this backend runs ", known_ops());
}

void check_tensor(const Lowering& l, const std::string& what, const TensorSpec& tensor) {
  const size_t rank = tensor.shape.size();
  l.require(rank >= 1 && rank <= static_cast<size_t>(kMaxRank), what, " has ", rank, " dimensions; ATB takes 1 to ",
            kMaxRank, ": reshape it first");
  l.require(tensor.dtype != bf16 || l.device().bf16, what,
            " is bfloat16, which the device does not have: run the model in float16");
}

void check_tensors(const Lowering& l) {
  for (int i = 0; i < l.num_inputs(); ++i) check_tensor(l, "input " + std::to_string(i), l.input(i));
  for (int i = 0; i < l.num_outputs(); ++i) {
    if (l.output_used(i)) check_tensor(l, "output " + std::to_string(i), l.output(i));
  }
}

// Returns those of the types that the device supports.
std::vector<DataType> available(const std::vector<DataType>& types, const DeviceInfo& device) {
  std::vector<DataType> result;
  std::copy_if(types.begin(), types.end(), std::back_inserter(result),
               [&](DataType type) { return type != bf16 || device.bf16; });
  return result;
}

}  // namespace

const std::vector<LoweringRule>& lowering_rules() {
  static const std::vector<LoweringRule> kRules = {
      {"Linear",
       lower_linear,
       "Linear; aclnnWeightQuantBatchMatmulV2 for a weight of integers",
       {f16, bf16, f32},
       "the result has the type of x (no out_dtype); x of two or three dimensions; float32 only for x [m, k] and a "
       "weight [n, k] without a bias, and not on 310P; on 310P weights whose sizes are multiples of 16 are kept in "
       "FRACTAL_NZ, elsewhere [n, k] as [k, n] where that is faster; on 910B a bias of the type of x is added to the "
       "rounded product; a weight of integers of 8 or 4 bits: x [m, k], no size above 65535, one scale for a row or "
       "groups of multiples of 32 (on 310P 8 bits and one scale for a row alone), a bias beside bfloat16 in float32"},
      {"BatchMatmul", lower_batch_matmul, "Linear", {f16, bf16}, "as many weights as batches of x"},
      {"QuantLinear",
       lower_quant_linear,
       "Linear with deqScale, PER_TOKEN with token_scale",
       {i8},
       "the result is float16 (the scale int64 with the bits of a float32) or bfloat16 (the scale float32); with "
       "token_scale x has two dimensions, the scale is float32 and there is no bias, and not on 310P; on 310P with a "
       "bias and a weight [n, k] whose sizes are multiples of 16 and 32"},
      {"GroupedMatmul",
       lower_grouped_matmul,
       "aclnnGroupedMatmulV4",
       {f16, bf16, f32},
       "not on 310P; up to 1024 experts, whose rows have up to 65535 elements; in bfloat16 a bias is used in float32"},
      {"MoeTopkSoftmax",
       lower_moe_topk_softmax,
       "aclnnMoeGatingTopKSoftmaxV2, behind Elewise CAST to float32",
       {f16, bf16, f32},
       "not on 310P; row_idx must not be used; up to 1024 chosen experts; which of equal experts comes first is open"},
      {"MoeInitRouting",
       lower_moe_init_routing,
       "aclnnMoeInitRoutingV2, and Elewise CAST of the group list",
       {f16, bf16, f32},
       "not on 310P"},
      {"MoeTokenUnpermute",
       lower_moe_token_unpermute,
       "aclnnMoeTokenUnpermute",
       {f16, bf16, f32},
       "not on 310P; up to 512 chosen experts"},
      {"QuantPerChannel",
       lower_quant_per_channel,
       "Elewise QUANT_PER_CHANNEL",
       {f16, bf16},
       "the scale has the type of x"},
      {"DynamicQuant",
       lower_dynamic_quant,
       "Elewise DYNAMIC_QUANT",
       {f16, bf16},
       "x of two dimensions or more; rows of at most 26624 elements in float16, 7552 in bfloat16, 4096 on 310P"},
      {"RmsNorm",
       lower_rms_norm,
       "RmsNorm NORM",
       {f16, bf16},
       "rows are multiples of 32 bytes; the weight has the type of x"},
      {"AddRmsNorm",
       lower_add_rms_norm,
       "RmsNorm PRENORM",
       {f16, bf16},
       "rstd must not be used; rows are multiples of 32 bytes"},
      {"atb_quant.RmsNormQuant",
       lower_rms_norm_quant,
       "RmsNorm NORM or PRENORM with INT8",
       {f16},
       "rows are multiples of 32 bytes; weight, bias and scale have the type of x; one scale"},
      {"LayerNorm",
       lower_layer_norm,
       "LayerNorm NORM",
       {f16, bf16, f32},
       "rows are multiples of 32 bytes; weight and bias have the type of x; float32 not on 310P"},
      {"Rope",
       lower_rope,
       "Rope",
       {f16, bf16},
       "head size 16 to 4096; rotary_coeff 2 or the head size; q is a multiple of k in width; cos and sin of q's type, "
       "or float32 beside float16"},
      {"SelfAttention",
       lower_self_attention,
       "SelfAttention PA_ENCODER",
       {f16, bf16},
       "head size up to 576; on 310P up to 256 and a multiple of 16; the values of a NORM mask are added without "
       "is_triu_mask and in float16 only, those of ALIBI always; NORM_COMPRESS is 128 x 128; scores are float32, but "
       "float16 with added values and on 310P; lengths also on the host"},
      {"PagedAttention",
       lower_paged_attention,
       "PagedAttention",
       {f16, bf16},
       "head size up to 576, on 310P and with CALC_TYPE_SPEC up to 256; blocks are multiples of 16 slots; up to 256 "
       "head size times block size is at most 16384 (but for heads of 256 on 910B also multiples of 128 slots), above "
       "a block has at most 128 slots; SPEC needs a mask, on 310P of MASK_TYPE_SPEC; one token of each sequence takes "
       "a mask on 910B only; lengths also on the host, but not on 310P; a sequence of length 0 keeps what its rows "
       "held"},
      {"ReshapeAndCache",
       lower_reshape_and_cache,
       "ReshapeAndCache",
       {f16, bf16, i8},
       "as many heads of k and v; on 310P the caches are in FRACTAL_NZ, and k and v have heads of one size, a multiple "
       "of 16"},
      {"Activation",
       lower_activation,
       "Activation",
       {f16, bf16, f32},
       "no float32 for SWISH, SIGMOID and FAST_GELU; RELU of float16 is computed in float32; SWIGLU on 310P wants a "
       "last dimension that is a multiple of 32"},
      {"Elewise",
       lower_elewise,
       "Elewise",
       {f16, bf16, f32, i8, i32, i64},
       "no float32 for MUL, SUB, NEG and TANH; int32 for ADD; int64 for ADD, SUB, LESS and GREATER; int8 for logic"},
      {"Cast",
       lower_cast,
       "Elewise CAST; Slice for the type it has",
       {f16, bf16, f32, i8, i32, i64, b8},
       "between floating-point types, and between int32 and int64; float16 and bfloat16 by way of float32"},
      {"Gather", lower_gather, "Gather", {f16, bf16, f32, i32, i64}, "indices are not checked on the device"},
      {"Concat", lower_concat, "Concat", {f16, bf16}, "more than two inputs become several operations"},
      {"Split",
       lower_split,
       "Split of two or three parts, else a Slice for each",
       {f16, bf16, f32, i8, i32, i64, b8},
       "int64 in two parts only"},
      {"Slice", lower_slice, "Slice", {f16, bf16, f32, i8, i32, b8}, ""},
      {"Transpose", lower_transpose, "Transpose", {f16, bf16, i8, i32, i64}, ""},
      {"Repeat",
       lower_repeat,
       "Repeat",
       {f16, bf16},
       "the dimensions of x and those of them that grow are eight at most together"},
      {"Softmax", lower_softmax, "Softmax", {f16, bf16, f32}, ""},
      {"Sort", lower_sort, "Sort", {f16, bf16, f32}, "no float32 on 310P; which of equal elements comes first is open"},
      {"Reduce",
       lower_reduce,
       "Reduce",
       {f16, bf16, i32},
       "MAX and MIN of bfloat16 and int32, SUM of float16 and bfloat16; one dimension has to be left"},
      {"AllReduce",
       lower_all_reduce,
       "AllReduce",
       {f16, bf16, f32, i8, i32, i64},
       "LCCL within one server, not on 310P; int64 not with LCCL and not on 310P; no prod of bfloat16; without a rank "
       "table at most as many ranks as the process sees devices"},
      {"AllGather",
       lower_all_gather,
       "AllGather",
       {f16, bf16, f32, i8, i32, i64},
       "LCCL within one server, not on 310P; ranks as for AllReduce"},
      {"LinearParallel",
       lower_linear_parallel,
       "LinearParallel",
       {f16, bf16},
       "the sum over the ranks, no bias; LCOC for a power of two of ranks; not on 310P; ranks as for AllReduce"},
  };
  return kRules;
}

void lower(Lowering& lowering, std::string_view op) {
  const LoweringRule& rule = rule_for(lowering, op);
  check_tensors(lowering);
  for (int i = 0; i < lowering.num_inputs(); ++i) {
    lowering.require(lowering.quantized(i) == nullptr || (op == "Linear" && i == 1), "input ", i,
                     " is a weight that is ", "stored as integers, which only the matrix of a Linear can be");
  }
  if (lowering.num_inputs() > 0) {
    const DataType type = lowering.input(0).dtype;
    const std::vector<DataType> types = available(rule.types, lowering.device());
    lowering.require(std::find(types.begin(), types.end(), type) != types.end(), "input 0 is ", name(type),
                     ", and ATB takes ", type_list(types),
                     type == f32 ? ": run the model in float16" : ": cast its input",
                     type == f32 && lowering.device().bf16 ? " or bfloat16" : "");
  }
  rule.lower(lowering);
}

const QuantFormat* Lowering::quantized(int index) const {
  const auto found = formats_.find(node_.inputs[static_cast<size_t>(index)]);
  return found == formats_.end() ? nullptr : &found->second;
}

void Lowering::add_call(AclnnParam param, std::vector<int> inputs, std::vector<int> outputs) {
  const std::string name = param.call->name;
  const std::string problem = aclnn_problem(name);
  require(problem.empty(), problem, ": install a version of CANN that has it");
  const auto kept = std::make_shared<const AclnnParam>(std::move(param));
  nodes_.push_back({name,
                    [kept](::atb::Operation** made) {
                      *made = new AclnnOperation(*kept);
                      return ::atb::Status{::atb::NO_ERROR};
                    },
                    std::move(inputs), std::move(outputs)});
}

bool Lowering::read_only_by(int index, std::string_view op) const {
  const int tensor = node_.inputs[static_cast<size_t>(index)];
  return std::all_of(graph_.nodes().begin(), graph_.nodes().end(), [&](const Graph::Node& node) {
    return node.op == op || std::find(node.inputs.begin(), node.inputs.end(), tensor) == node.inputs.end();
  });
}

std::optional<int64_t> Lowering::size(int input_index, int axis) const {
  const DimExpr& size = input(input_index).shape[static_cast<size_t>(axis)];
  if (!size.dims().empty()) return std::nullopt;
  return size.evaluate({});
}

}  // namespace atb_core::ascend
