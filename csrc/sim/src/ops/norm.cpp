// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <cmath>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::RmsNormParam;
constexpr const char* kName = "RmsNormOperation";

// What the kernel needs of the parameter.
struct Norm {
  bool residual = false, returns_residual = false, bias = false, rstd = false, gemma = false;
  float epsilon = 0.0f;
};

void normalise(const Norm& norm, const Views& in, const Views& out) {
  const View& gamma = in.back();
  const int64_t width = gamma.dims.back(), rows = in[0].count() / width;
  std::vector<float> weight(static_cast<size_t>(width)), x(weight.size()), other(weight.size());
  load(gamma.data, gamma.dtype, 0, width, weight.data());
  for (float& w : weight) w += norm.gemma ? 1.0f : 0.0f;
  const View& y = out[0];
  for (int64_t row = 0; row < rows; ++row) {
    load(in[0].data, in[0].dtype, row * width, width, x.data());
    for (size_t term = 1; term + 1 < in.size(); ++term) {  // [bias,] residual
      const bool is_bias = norm.bias && term == 1;
      load(in[term].data, in[term].dtype, is_bias ? 0 : row * width, width, other.data());
      for (size_t i = 0; i < x.size(); ++i) x[i] += other[i];
    }
    if (norm.returns_residual) store(x.data(), out[1].dtype, row * width, width, out[1].data);
    double squares = 0.0;
    for (float v : x) squares += static_cast<double>(v) * v;
    const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(width)) + norm.epsilon);
    for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * scale * weight[i];
    store(x.data(), y.dtype, row * width, width, y.data);
    if (norm.rstd) reinterpret_cast<float*>(out[1].data)[row] = scale;
  }
}

class RmsNorm : public PlainRules {
 public:
  RmsNorm(const Norm& norm, std::string key, bool high_performance)
      : PlainRules(kName, 2u + (norm.residual ? 1u : 0u) + (norm.bias ? 1u : 0u),
                   norm.rstd || norm.returns_residual ? 2 : 1),
        norm_(norm),
        key_(std::move(key)),
        high_performance_(high_performance) {}

 protected:
  std::string key() const override { return key_; }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const TensorDesc &x = in[0], &gamma = in.back();
    for (int64_t axis = 0; axis + 1 < rank(gamma); ++axis) {
      if (dim(gamma, axis) != 1) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "gamma ", text(gamma), " has a size that is not 1 before its last");
      }
    }
    if (rank(gamma) > rank(x) || dim(gamma, -1) != dim(x, -1)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "gamma ", text(gamma), " does not fit x ", text(x));
    }
    if (norm_.residual && sizes(in[in.size() - 2]) != sizes(x)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the residual ", text(in[in.size() - 2]), " has not the shape of x ",
                    text(x));
    }
    if (norm_.bias && elements(in[1]) != dim(x, -1)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the bias ", text(in[1]), " does not fit x ", text(x));
    }
    out[0] = x;
    if (norm_.returns_residual) out[1] = x;
    if (norm_.rstd) {
      Sizes reduced = sizes(x);
      for (size_t i = 0; i < static_cast<size_t>(rank(gamma)); ++i) reduced[reduced.size() - 1 - i] = 1;
      out[1] = describe(ACL_FLOAT, reduced);
    }
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const int64_t bytes = dim(in[0], -1) * static_cast<int64_t>(size_of(in[0].dtype));
    if (bytes % 32 != 0) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the last dimension of ", text(in[0]), " takes ", bytes,
                    " bytes, no multiple of 32");
    }
    if (high_performance_ && in[0].dtype != ACL_FLOAT16) {
      return refuse(ERROR_INVALID_TENSOR_DTYPE, "HIGH_PERFORMANCE_MODE takes float16 only, x is ", text(in[0].dtype));
    }
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [norm = norm_](const Views& in, const Views& out) { normalise(norm, in, out); };
  }

 private:
  Norm norm_;
  std::string key_;
  bool high_performance_;
};

Status check_epsilons(const RmsNormParam& param) {
  const double values[] = {param.normParam.epsilon, param.normParam.layerNormEps, param.preNormParam.epsilon,
                           param.postNormParam.epsilon};
  for (double value : values) {
    if (!(value >= 2e-38)) {
      return reject(ERROR_INVALID_PARAM, kName, ": an epsilon is ", value,
                    "; all four of the parameter must be at least 2e-38, used or not");
    }
  }
  return NO_ERROR;
}

Status check_quant(const RmsNormParam& param) {
  if (param.normParam.dynamicQuantType == infer::DYNAMIC_QUANT_ASYMMETRIC) {
    return reject(ERROR_INVALID_PARAM, kName, ": there is no asymmetric dynamic quantisation");
  }
  if (param.normParam.quantType != infer::QUANT_UNDEFINED || param.preNormParam.quantType != infer::QUANT_UNDEFINED ||
      param.postNormParam.quantType != infer::QUANT_UNDEFINED ||
      param.normParam.dynamicQuantType != infer::DYNAMIC_QUANT_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has no quantised norms");
  }
  return NO_ERROR;
}

Status make_norm(const RmsNormParam& param, std::unique_ptr<OpRules>& rules) {
  const bool rstd = param.normParam.rstd;
  if (rstd && family() != Family::a2) return reject(ERROR_INVALID_PARAM, kName, ": rstd exists on 910B only");
  const bool fast = param.normParam.precisionMode == RmsNormParam::HIGH_PERFORMANCE_MODE;
  Norm norm{.rstd = rstd, .epsilon = param.normParam.epsilon};
  norm.gemma = param.normParam.modelType == RmsNormParam::GEMMA_MODEL;
  if (int{rstd} + int{fast} + int{norm.gemma} > 1) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": rstd, HIGH_PERFORMANCE_MODE and GEMMA_MODEL are kernels of their own and do not combine");
  }
  rules = std::make_unique<RmsNorm>(norm, rstd ? "RmsNormOperationNORMWithRSTD" : "RmsNormOperationNORM", fast);
  return NO_ERROR;
}

}  // namespace

Status make_rules(const RmsNormParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.normParam.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.preNormParam.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.postNormParam.rsv));
  ATB_SIM_TRY(check_epsilons(param));
  ATB_SIM_TRY(check_quant(param));
  const bool pre = param.layerType == RmsNormParam::RMS_NORM_PRENORM;
  if (param.layerType == RmsNormParam::RMS_NORM_NORM) return make_norm(param, rules);
  if (!pre && param.layerType != RmsNormParam::RMS_NORM_POSTNORM) {
    return reject(ERROR_INVALID_PARAM, kName, ": layerType ", static_cast<int>(param.layerType),
                  " is none of NORM, PRENORM and POSTNORM");
  }
  const bool bias = pre ? param.preNormParam.hasBias : param.postNormParam.hasBias;
  if (!bias && (param.preNormParam.hasBias || param.postNormParam.hasBias)) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": hasBias is set for the other layer type; ATB would count an input more");
  }
  Norm norm{.residual = true, .returns_residual = pre, .bias = bias};
  norm.epsilon = pre ? param.preNormParam.epsilon : param.postNormParam.epsilon;
  rules = std::make_unique<RmsNorm>(norm, pre ? "RmsNormOperationPRENORM" : "RmsNormOperationPOSTNORM", false);
  return NO_ERROR;
}

}  // namespace atb::sim
