// SPDX-License-Identifier: Apache-2.0
#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using ::atb::infer::RmsNormParam;

// The bytes of the pieces in which the kernel moves rows.
constexpr int64_t kRowBytes = 32;
constexpr float kLeastEpsilon = 2e-38f;

float checked_epsilon(const Lowering& l) {
  const float epsilon = l.number("epsilon");
  l.require(epsilon >= kLeastEpsilon, "epsilon is ", epsilon, "; ATB wants at least 2e-38");
  return epsilon;
}

void check_weight(const Lowering& l, int weight) {
  require_type(l, weight, "the weight", l.input(0).dtype);
  l.require(l.rank(weight) == 1, "the weight has ", l.rank(weight), " dimensions, not one");
  const auto width = l.size(weight, 0);
  if (!width) return;
  const int64_t bytes = *width * static_cast<int64_t>(itemsize(l.input(weight).dtype));
  l.require(bytes % kRowBytes == 0, "rows of ", *width, " elements are no multiple of ", kRowBytes,
            " bytes, which ATB's norms want");
}

}  // namespace

void lower_rms_norm(Lowering& l) {
  check_weight(l, 1);
  require_result_type(l);
  RmsNormParam param{};
  param.layerType = RmsNormParam::RMS_NORM_NORM;
  param.normParam.epsilon = checked_epsilon(l);
  l.add("RmsNorm", param, {l.in(0), l.in(1)}, {l.out(0)});
}

// Over the last dimension, which the axes name from the front.
void lower_layer_norm(Lowering& l) {
  check_weight(l, 1);
  check_weight(l, 2);
  require_result_type(l);
  l.require(l.input(0).dtype != DataType::f32 || !l.device().nz, "LayerNorm takes no float32 there: run the model in ",
            "float16");
  ::atb::infer::LayerNormParam param{};
  param.layerType = ::atb::infer::LayerNormParam::LAYER_NORM_NORM;
  param.normParam.epsilon = l.number("epsilon");
  param.normParam.beginNormAxis = param.normParam.beginParamsAxis = l.rank(0) - 1;
  l.add("LayerNorm", param, {l.in(0), l.in(1), l.in(2)}, {l.out(0)});
}

// Outputs: the norm, the reciprocal deviation, the sum. ATB's PRENORM gives the first and the last.
void lower_add_rms_norm(Lowering& l) {
  check_weight(l, 2);
  require_type(l, 1, "b", l.input(0).dtype);
  require_result_type(l, 0);
  require_result_type(l, 2);
  l.require(!l.output_used(1), "ATB gives no reciprocal deviation (rstd) here: use only the norm and the sum");
  RmsNormParam param{};
  param.layerType = RmsNormParam::RMS_NORM_PRENORM;
  param.preNormParam.epsilon = checked_epsilon(l);
  param.preNormParam.hasBias = false;
  l.add("RmsNorm", param, {l.in(0), l.in(1), l.in(2)}, {l.out(0), l.out(2)});
}

// Inputs: x [, residual], weight, bias, scale, offset.
void lower_rms_norm_quant(Lowering& l) {
  const bool residual = l.flag("has_residual");
  const int weight = residual ? 2 : 1;
  l.require(l.num_inputs() == weight + 4, "it has ", l.num_inputs(), " inputs, not ", weight + 4);
  check_weight(l, weight);
  for (int input : {weight + 1, weight + 2}) require_type(l, input, "bias or scale", l.input(0).dtype);
  require_type(l, weight + 3, "the offset", DataType::i8);
  RmsNormParam param{};
  std::vector<int> inputs, outputs = {l.out(0)};
  for (int i = 0; i < l.num_inputs(); ++i) inputs.push_back(l.in(i));
  if (residual) {
    require_type(l, 1, "the residual", l.input(0).dtype);
    param.layerType = RmsNormParam::RMS_NORM_PRENORM;
    param.preNormParam.epsilon = checked_epsilon(l);
    param.preNormParam.quantType = ::atb::infer::QUANT_INT8;
    outputs.push_back(l.out(1));
  } else {
    param.layerType = RmsNormParam::RMS_NORM_NORM;
    param.normParam.epsilon = checked_epsilon(l);
    param.normParam.quantType = ::atb::infer::QUANT_INT8;
  }
  l.add("RmsNorm", param, inputs, outputs);
}

}  // namespace atb_core::ascend
