// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <cmath>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/quantize.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::RmsNormParam;
constexpr const char* kName = "RmsNormOperation";

// What the kernel needs of the parameter.
struct Norm {
  bool residual = false, returns_residual = false, bias = false, rstd = false, gemma = false;
  bool quantised = false;  // int8, by beta, scale and offset behind gamma
  float epsilon = 0.0f;

  size_t gamma() const { return 1 + size_t{bias} + size_t{residual}; }
};

// Writes a row of norms as integers.
void quantise(const Views& in, size_t beta, const std::vector<float>& x, std::byte* out) {
  std::vector<float> added(x.size());
  load(in[beta].data, in[beta].dtype, 0, static_cast<int64_t>(x.size()), added.data());
  const float scale = load_one(in[beta + 1].data, in[beta + 1].dtype, 0);
  const auto offset = static_cast<float>(load_integer(in[beta + 2].data, in[beta + 2].dtype, 0));
  for (size_t i = 0; i < x.size(); ++i) {
    reinterpret_cast<int8_t*>(out)[i] = to_int8((x[i] + added[i]) / scale + offset);
  }
}

void normalise(const Norm& norm, const Views& in, const Views& out) {
  const View& gamma = in[norm.gamma()];
  const int64_t width = gamma.dims.back(), rows = in[0].count() / width;
  std::vector<float> weight(static_cast<size_t>(width)), x(weight.size()), other(weight.size());
  load(gamma.data, gamma.dtype, 0, width, weight.data());
  for (float& w : weight) w += norm.gemma ? 1.0f : 0.0f;
  const View& y = out[0];
  for (int64_t row = 0; row < rows; ++row) {
    load(in[0].data, in[0].dtype, row * width, width, x.data());
    for (size_t term = 1; term < norm.gamma(); ++term) {  // [bias,] residual
      const bool is_bias = norm.bias && term == 1;
      load(in[term].data, in[term].dtype, is_bias ? 0 : row * width, width, other.data());
      for (size_t i = 0; i < x.size(); ++i) x[i] += other[i];
    }
    if (norm.returns_residual) store(x.data(), out[1].dtype, row * width, width, out[1].data);
    double squares = 0.0;
    for (float v : x) squares += static_cast<double>(v) * v;
    const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(width)) + norm.epsilon);
    for (size_t i = 0; i < x.size(); ++i) x[i] = x[i] * scale * weight[i];
    if (norm.quantised) {
      quantise(in, norm.gamma() + 1, x, y.data + row * width);
    } else {
      store(x.data(), y.dtype, row * width, width, y.data);
    }
    if (norm.rstd) reinterpret_cast<float*>(out[1].data)[row] = scale;
  }
}

class RmsNorm : public PlainRules {
 public:
  RmsNorm(const Norm& norm, std::string key, bool high_performance)
      : PlainRules(kName, static_cast<uint32_t>(norm.gamma()) + (norm.quantised ? 4u : 1u),
                   norm.rstd || norm.returns_residual ? 2 : 1),
        norm_(norm),
        key_(std::move(key)),
        high_performance_(high_performance) {}

 protected:
  std::string key() const override { return key_; }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const TensorDesc &x = in[0], &gamma = in[norm_.gamma()];
    for (int64_t axis = 0; axis + 1 < rank(gamma); ++axis) {
      if (dim(gamma, axis) != 1) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "gamma ", text(gamma), " has a size that is not 1 before its last");
      }
    }
    if (rank(gamma) > rank(x) || dim(gamma, -1) != dim(x, -1)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "gamma ", text(gamma), " does not fit x ", text(x));
    }
    const TensorDesc& residual = in[norm_.gamma() - 1];
    if (norm_.residual && sizes(residual) != sizes(x)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the residual ", text(residual), " has not the shape of x ", text(x));
    }
    if (norm_.bias && elements(in[1]) != dim(x, -1)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the bias ", text(in[1]), " does not fit x ", text(x));
    }
    out[0] = x;
    if (norm_.quantised) {
      const TensorDesc *beta = &in[norm_.gamma() + 1], *scale = beta + 1, *offset = beta + 2;
      if (elements(*beta) != dim(x, -1) || elements(*scale) != 1 || elements(*offset) != 1) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "beta ", text(*beta), ", scale ", text(*scale), " and offset ",
                      text(*offset), " do not fit x ", text(x));
      }
      out[0].dtype = ACL_INT8;
    }
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
  const auto simulated = [](infer::QuantType type) {
    return type == infer::QUANT_UNDEFINED || type == infer::QUANT_INT8;
  };
  if (!simulated(param.normParam.quantType) || !simulated(param.preNormParam.quantType) ||
      param.postNormParam.quantType != infer::QUANT_UNDEFINED ||
      param.normParam.dynamicQuantType != infer::DYNAMIC_QUANT_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has quantised norms of INT8, NORM and PRENORM, only");
  }
  return NO_ERROR;
}

Status make_norm(const RmsNormParam& param, std::unique_ptr<OpRules>& rules) {
  const bool rstd = param.normParam.rstd;
  if (rstd && family() != Family::a2) return reject(ERROR_INVALID_PARAM, kName, ": rstd exists on 910B only");
  const bool fast = param.normParam.precisionMode == RmsNormParam::HIGH_PERFORMANCE_MODE;
  Norm norm{.rstd = rstd, .quantised = param.normParam.quantType == infer::QUANT_INT8};
  norm.epsilon = param.normParam.epsilon;
  norm.gemma = param.normParam.modelType == RmsNormParam::GEMMA_MODEL;
  if (int{rstd} + int{fast} + int{norm.gemma} + int{norm.quantised} > 1) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": rstd, HIGH_PERFORMANCE_MODE, GEMMA_MODEL and INT8 are kernels of their own and do not combine");
  }
  const char* key = rstd ? "RmsNormOperationNORMWithRSTD" : "RmsNormOperationNORM";
  rules = std::make_unique<RmsNorm>(norm, norm.quantised ? "RmsNormOperationNORMAndQUANT" : key, fast);
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
  norm.quantised = pre && param.preNormParam.quantType == infer::QUANT_INT8;
  if (norm.quantised && bias) return reject(ERROR_INVALID_PARAM, kName, ": INT8 has no bias before the norm");
  const char* key = norm.quantised ? "RmsNormOperationPRENORMAndQUANT" : "RmsNormOperationPRENORM";
  rules = std::make_unique<RmsNorm>(norm, pre ? key : "RmsNormOperationPOSTNORM", false);
  return NO_ERROR;
}

}  // namespace atb::sim
