// SPDX-License-Identifier: Apache-2.0
// Mixtures of experts: ATB has no operations for them, so each op is a call of aclnn.
#include "atb/aclnn_calls.h"
#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

constexpr int64_t kMostChosen = 512;
constexpr int64_t kMostRanked = 1024;
constexpr int64_t kMostGroups = 1024;
constexpr int64_t kMostWidth = 65535;

void check_device(const Lowering& l) {
  l.require(!l.device().nz, "mixtures of experts need calls of aclnn that are not on this device");
}

void check_matrix(const Lowering& l, int64_t groups) {
  l.require(groups <= kMostGroups, groups, " experts; the call takes ", kMostGroups);
  const auto width = l.size(1, 2);
  l.require(!width || *width <= kMostWidth, "rows of the weight have ", width.value_or(0), " elements; the call takes ",
            kMostWidth);
}

}  // namespace

void lower_moe_topk_softmax(Lowering& l) {
  using namespace moe_gating;
  check_device(l);
  l.require(!l.output_used(2), "something reads row_idx, which the call does not make");
  const int64_t count = l.integer("topk_num");
  l.require(count <= kMostRanked, "topk_num is ", count, "; the call takes ", kMostRanked);
  // Results have the type of the logits, and the op's are float32.
  int logits = l.in(0);
  if (l.input(0).dtype != DataType::f32) add_cast(l, l.in(0), logits = l.internal(), DataType::f32);
  const AclnnParam param{&kCall, {{x}}, {{weights}, {experts}}, {count, l.flag("normalize") ? 1 : 0}};
  l.add_call(param, {logits}, {l.out(0), l.out(1)});
}

void lower_moe_init_routing(Lowering& l) {
  using namespace moe_routing;
  check_device(l);
  const int counts = l.internal();
  const AclnnParam param{&kCall, {{x}, {experts}}, {{rows}, {places_of_rows}, {ends}}, {l.integer("expert_num")}};
  l.add_call(param, {l.in(0), l.in(1)}, {l.out(0), l.out(1), counts});
  // The grouped product wants int64.
  add_cast(l, counts, l.out(2), DataType::i64);
}

void lower_grouped_matmul(Lowering& l) {
  using namespace grouped_matmul;
  check_device(l);
  const bool has_bias = l.flag("has_bias");
  const DataType type = l.input(0).dtype;
  require_type(l, 1, "the weight", type);
  check_matrix(l, l.size(1, 0).value_or(0));
  const AclnnView view = l.flag("transpose_b") ? AclnnView::turned : AclnnView::plain;
  AclnnParam param{&kCall, {{x, AclnnView::plain, true}, {weight, view, true}}, {{y, AclnnView::plain, true}}, {}};
  std::vector<int> inputs = {l.in(0), l.in(1)};
  if (has_bias) {
    // Beside bfloat16 the call takes a bias of float32 only.
    const DataType wanted = type == DataType::bf16 ? DataType::f32 : type, given = l.input(2).dtype;
    l.require(given == wanted || given == type, "the bias is ", name(given), ", and has to be ", name(type));
    int value = l.in(2);
    if (given != wanted) add_cast(l, l.in(2), value = l.internal(), wanted);
    param.inputs.push_back({bias, AclnnView::plain, true});
    inputs.push_back(value);
  }
  param.inputs.push_back({group_list});
  inputs.push_back(l.in(l.num_inputs() - 1));
  l.add_call(std::move(param), std::move(inputs), {l.out(0)});
}

void lower_moe_token_unpermute(Lowering& l) {
  using namespace moe_unpermute;
  check_device(l);
  const auto count = l.size(2, 1);
  l.require(!count || *count <= kMostChosen, "a token has ", count.value_or(0), " experts; the call takes ",
            kMostChosen);
  const AclnnParam param{&kCall, {{rows}, {indices}, {probs}}, {{y}}, {}};
  l.add_call(param, {l.in(0), l.in(1), l.in(2)}, {l.out(0)});
}

}  // namespace atb_core::ascend
