// SPDX-License-Identifier: Apache-2.0
// LayerNorm with layerType NORM over the last dimension.
#include <atb/atb_infer.h>

#include <cmath>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::LayerNormParam;
constexpr const char* kName = "LayerNormOperation";
constexpr int64_t kRowBytes = 32;

void normalise(float epsilon, const Views& in, const Views& out) {
  const View &x = in[0], &y = out[0];
  const int64_t width = x.dims.back(), rows = x.count() / width;
  std::vector<float> row(static_cast<size_t>(width)), gamma(row.size()), beta(row.size());
  load(in[1].data, in[1].dtype, 0, width, gamma.data());
  load(in[2].data, in[2].dtype, 0, width, beta.data());
  for (int64_t r = 0; r < rows; ++r) {
    load(x.data, x.dtype, r * width, width, row.data());
    double sum = 0.0, squares = 0.0;
    for (float v : row) sum += static_cast<double>(v);
    const auto mean = static_cast<float>(sum / static_cast<double>(width));
    for (float& v : row) v -= mean;
    for (float v : row) squares += static_cast<double>(v) * static_cast<double>(v);
    const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(width)) + epsilon);
    for (size_t i = 0; i < row.size(); ++i) row[i] = row[i] * scale * gamma[i] + beta[i];
    store(row.data(), y.dtype, r * width, width, y.data);
  }
}

class LayerNorm : public PlainRules {
 public:
  explicit LayerNorm(const LayerNormParam& param) : PlainRules(kName, 3, 1), param_(param) {}

 protected:
  std::string key() const override { return name() + "Norm"; }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const int64_t last = rank(in[0]) - 1;
    const auto is_last = [&](int64_t axis) { return axis == last || axis == -1; };
    if (!is_last(param_.normParam.beginNormAxis) || !is_last(param_.normParam.beginParamsAxis)) {
      return refuse(ERROR_INVALID_PARAM, "beginNormAxis ", param_.normParam.beginNormAxis, " and beginParamsAxis ",
                    param_.normParam.beginParamsAxis, ": the simulator normalises the last dimension of ", text(in[0]),
                    " alone");
    }
    for (size_t i : {size_t{1}, size_t{2}}) {
      if (elements(in[i]) == dim(in[0], -1) && dim(in[i], -1) == dim(in[0], -1)) continue;
      return refuse(ERROR_INVALID_TENSOR_DIM, "input ", i, " ", text(in[i]), " does not fit x ", text(in[0]));
    }
    out[0] = in[0];
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const int64_t bytes = dim(in[0], -1) * static_cast<int64_t>(size_of(in[0].dtype));
    if (bytes % kRowBytes == 0) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "the last dimension of ", text(in[0]), " takes ", bytes,
                  " bytes, no multiple of ", kRowBytes);
  }

  Kernel kernel() const override {
    return [epsilon = param_.normParam.epsilon](const Views& in, const Views& out) { normalise(epsilon, in, out); };
  }

 private:
  LayerNormParam param_;
};

}  // namespace

Status make_rules(const LayerNormParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.normParam.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.preNormParam.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.postNormParam.rsv));
  if (param.layerType != LayerNormParam::LAYER_NORM_NORM) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has the layerType NORM, not ",
                  static_cast<int>(param.layerType));
  }
  if (param.normParam.quantType != infer::QUANT_UNQUANT ||
      param.normParam.dynamicQuantType != infer::DYNAMIC_QUANT_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has no quantised norms");
  }
  if (!(param.normParam.epsilon >= 0.0f)) {
    return reject(ERROR_INVALID_PARAM, kName, ": the epsilon ", param.normParam.epsilon, " is negative");
  }
  rules = std::make_unique<LayerNorm>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
