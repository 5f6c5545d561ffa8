// SPDX-License-Identifier: Apache-2.0
// QuantLinear, QuantPerChannel and DynamicQuant.
#include "atb/layout.h"
#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using ::atb::infer::ElewiseParam;
using ::atb::infer::LinearParam;
using enum DataType;

// A weight of int8 in FRACTAL_NZ has blocks of 16 rows and 32 columns.
constexpr int64_t kNzRows = 16;
constexpr int64_t kNzColumns = 32;

void check_nz(Lowering& l) {
  l.require(l.flag("has_bias") && l.flag("transpose_b"),
            "products of int8 need a bias and a weight [n, k] (transpose_b) there: give a bias of zeros");
  const auto n = l.size(1, 0), k = l.size(1, 1);
  l.require(l.input(1).kind == TensorKind::weight && n && k && *n % kNzRows == 0 && *k % kNzColumns == 0,
            "a weight of int8 has to be in FRACTAL_NZ there, so it must be a weight of the network with ", kNzRows,
            " and ", kNzColumns, " as divisors of its sizes");
  l.layout(1, Layout::nz);
}

}  // namespace

void lower_quant_linear(Lowering& l) {
  const bool has_bias = l.flag("has_bias"), by_token = l.flag("has_token_scale");
  const DataType out = l.output(0).dtype;
  l.require(out == f16 || out == bf16, "its result is ", name(out),
            ", and ATB's products of int8 are float16 or bfloat16");
  l.require(l.num_inputs() == 3 + has_bias + by_token, "it has ", l.num_inputs(), " inputs, not ",
            3 + has_bias + by_token);
  l.require(l.rank(0) == 2 || (l.rank(0) == 3 && !by_token), "x has ", l.rank(0),
            " dimensions; ATB's Linear takes two, or three without token_scale: reshape x first");
  require_type(l, 1, "the weight", i8);
  const bool bits = out == f16 && !by_token;
  require_type(l, 2, bits ? "the scale (the bits of a float32) of a float16 result" : "the scale", bits ? i64 : f32);
  LinearParam param{};
  param.transposeB = l.flag("transpose_b");
  param.hasBias = has_bias;
  param.outDataType = acl_type(out);
  std::vector<int> inputs = {l.in(0), l.in(1)};
  if (has_bias) inputs.push_back(l.in(l.num_inputs() - 1));
  inputs.push_back(l.in(2));
  if (by_token) {
    l.require(!l.device().nz, "there are no products of int8 with token_scale there");
    l.require(!has_bias, "ATB has no bias beside token_scale: add it to the result");
    param.quantMode = LinearParam::PER_TOKEN;
    inputs.push_back(l.in(3));
  }
  if (l.device().nz) check_nz(l);
  l.add("Linear", param, inputs, {l.out(0)});
}

void lower_quant_per_channel(Lowering& l) {
  require_type(l, 1, "the scale", l.input(0).dtype);
  ElewiseParam param{};
  param.elewiseType = ElewiseParam::ELEWISE_QUANT_PER_CHANNEL;
  l.add("Elewise", param, {l.in(0), l.in(1), l.in(2)}, {l.out(0)});
}

void lower_dynamic_quant(Lowering& l) {
  l.require(l.rank(0) >= 2, "x has one dimension; ATB's DYNAMIC_QUANT takes two or more: reshape x first");
  const auto width = l.size(0, l.rank(0) - 1);
  const int64_t most = l.device().nz ? 4096 : l.input(0).dtype == bf16 ? 7552 : 26624;
  l.require(!width || *width <= most, "rows of ", width.value_or(0), " elements; ATB's DYNAMIC_QUANT takes ", most,
            " of ", name(l.input(0).dtype));
  ElewiseParam param{};
  param.elewiseType = ElewiseParam::ELEWISE_DYNAMIC_QUANT;
  l.add("Elewise", param, {l.in(0)}, {l.out(0), l.out(1)});
}

}  // namespace atb_core::ascend
