// SPDX-License-Identifier: Apache-2.0
#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

constexpr int64_t kNzBlock = 16;
// The elements that the kernel moves at once.
constexpr int64_t kKernelRow = 256;

// float32 goes to a kernel of its own, for x [m, k] and a weight [n, k] alone.
void check_float(const Lowering& l, bool has_bias) {
  l.require(!l.device().nz, "Linear takes no float32 there: run the model in float16");
  l.require(!has_bias,
            "ATB's Linear takes no bias in float32: run the model in float16 or bfloat16, or add the bias "
            "with Elewise");
  l.require(l.rank(0) == 2, "in float32 ATB's Linear takes x of two dimensions, not ", l.rank(0), ": reshape x first");
  l.require(
      !l.flag("transpose_a") && l.flag("transpose_b"),
      "in float32 ATB's Linear takes x [m, k] and a weight [n, k] (transpose_b) only: transpose the weight, or run "
      "the model in float16 or bfloat16");
}

void check_types(const Lowering& l, bool has_bias) {
  const DataType type = l.input(0).dtype;
  l.require(l.output(0).dtype == type, "its result is ", name(l.output(0).dtype), " and x ", name(type),
            ", but ATB's Linear keeps the type of x: leave out_dtype away, logits then come in the model's type");
  require_type(l, 1, "the weight", type);
  if (type == DataType::f32) check_float(l, has_bias);
  if (!has_bias) return;
  const DataType bias = l.input(2).dtype;
  // A2 and A3 also take a bias with more bits.
  const bool wide = bias == DataType::f32 && !l.device().nz;
  l.require(bias == type || wide, "the bias is ", name(bias), " and x ", name(type), ": both must have one type");
}

// Stores a weight in blocks if the device prefers that and the sizes allow it.
bool fits_nz(const Lowering& l) {
  if (!l.device().nz || l.input(1).kind != TensorKind::weight) return false;
  for (int axis : {0, 1}) {
    const auto size = l.size(1, axis);
    if (!size || *size % kNzBlock != 0) return false;
  }
  return true;
}

// Applies ATB-Models' rule for a weight [n, k] whose product is faster as [k, n]: rows of n are aligned, those of k are
// not. A weight that is also gathered from keeps its one copy.
bool fits_transposed(const Lowering& l) {
  if (!l.device().transposes || l.input(1).kind != TensorKind::weight || !l.flag("transpose_b")) return false;
  if (l.input(0).dtype == DataType::f32) return false;
  const auto n = l.size(1, 0), k = l.size(1, 1);
  return n && k && *n % kKernelRow == 0 && *k % kKernelRow != 0 && l.read_only_by(1, "Linear");
}

}  // namespace

void lower_linear(Lowering& l) {
  const bool has_bias = l.flag("has_bias"), transpose_a = l.flag("transpose_a");
  const int expected = has_bias ? 3 : 2;
  l.require(l.num_inputs() == expected, "it has ", l.num_inputs(), " inputs, not ", expected);
  if (const QuantFormat* format = l.quantized(1)) return lower_weight_quant(l, *format);
  l.require(l.rank(0) == 2 || (l.rank(0) == 3 && !transpose_a), "x has ", l.rank(0),
            " dimensions; ATB's Linear takes two, or three without transpose_a: reshape x first");
  l.require(l.rank(1) == 2, "the weight has ", l.rank(1), " dimensions, not two");
  check_types(l, has_bias);
  ::atb::infer::LinearParam param{};
  param.transposeA = transpose_a;
  const bool turned = fits_transposed(l);
  param.transposeB = l.flag("transpose_b") && !turned;
  param.hasBias = has_bias;  // ATB's own default is true
  if (turned) l.layout(1, Layout::transposed);
  if (fits_nz(l)) l.layout(1, Layout::nz);
  std::vector<int> inputs = {l.in(0), l.in(1)};
  if (has_bias) inputs.push_back(l.in(2));
  l.add("Linear", param, inputs, {l.out(0)});
}

void lower_batch_matmul(Lowering& l) {
  l.require(l.rank(0) == 3 && l.rank(1) == 3, "x and the weight have ", l.rank(0), " and ", l.rank(1),
            " dimensions, not three");
  const auto batches = l.size(0, 0), weights = l.size(1, 0);
  l.require(!batches || !weights || *batches == *weights, "x has ", batches.value_or(0), " batches and the weight ",
            weights.value_or(0), ", and ATB takes as many: repeat the weight, or take Linear");
  check_types(l, false);
  ::atb::infer::LinearParam param{};
  param.transposeB = l.flag("transpose_b");
  param.hasBias = false;
  l.add("Linear", param, {l.in(0), l.in(1)}, {l.out(0)});
}

}  // namespace atb_core::ascend
