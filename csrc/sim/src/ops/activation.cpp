// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <cmath>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::ActivationParam;
using infer::ActivationType;
constexpr const char* kName = "ActivationOperation";
constexpr int64_t kSwigluStep310p = 32;

const char* suffix(ActivationType type) {
  constexpr const char* kSuffixes[] = {nullptr,          "RELU",
                                       "GELU",           "FAST_GELU",
                                       "SWISH",          "LOG",
                                       "SWIGLU_FORWARD", "SWIGLU_BACKWARD",
                                       "SIGMOID",        "FASTER_GELU_FORWARD"};
  return type > 0 && type <= infer::ACTIVATION_FASTER_GELU_FORWARD ? kSuffixes[type] : nullptr;
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

float gelu(float x, bool tanh) {
  if (!tanh) return 0.5f * x * (1.0f + std::erf(x * 0.70710678f));
  return 0.5f * x * (1.0f + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
}

float apply(const ActivationParam& param, float x) {
  const float size = std::fabs(x);
  switch (param.activationType) {
    case infer::ACTIVATION_RELU:
      return x > 0.0f || std::isnan(x) ? x : 0.0f;
    case infer::ACTIVATION_GELU:
      return gelu(x, param.geluMode == ActivationParam::TANH_MODE);
    case infer::ACTIVATION_FAST_GELU:
      return x * std::exp(0.851f * (x - size)) / (1.0f + std::exp(-1.702f * size));
    case infer::ACTIVATION_SWISH:
      return x * sigmoid(param.scale * x);
    case infer::ACTIVATION_LOG:
      return std::log(x);
    case infer::ACTIVATION_SIGMOID:
      return sigmoid(x);
    case infer::ACTIVATION_FASTER_GELU_FORWARD:
      return x * sigmoid(1.702f * size) * std::exp(0.851f * (x - size));
    default:
      throw std::runtime_error("ActivationOperation: no such activation");
  }
}

// The last dimension of x is gate and value beside each other.
void swiglu(const View& x, const View& y) {
  const int64_t half = y.dims.back(), rows = y.count() / half;
  std::vector<float> in(static_cast<size_t>(2 * half)), out(static_cast<size_t>(half));
  for (int64_t row = 0; row < rows; ++row) {
    load(x.data, x.dtype, row * 2 * half, 2 * half, in.data());
    for (size_t i = 0; i < out.size(); ++i) out[i] = in[i] * sigmoid(in[i]) * in[i + out.size()];
    store(out.data(), y.dtype, row * half, half, y.data);
  }
}

// dy [.., half], x [.., 2 half] -> dx.
void swiglu_backward(const View& dy, const View& x, const View& dx) {
  const int64_t width = x.dims.back(), half = width / 2, rows = x.count() / width;
  std::vector<float> g(static_cast<size_t>(half)), in(static_cast<size_t>(width)), out(in.size());
  for (int64_t row = 0; row < rows; ++row) {
    load(dy.data, dy.dtype, row * half, half, g.data());
    load(x.data, x.dtype, row * width, width, in.data());
    for (size_t i = 0; i < g.size(); ++i) {
      const float gate = in[i], value = in[i + g.size()], s = sigmoid(gate);
      out[i] = g[i] * value * s * (1.0f + gate * (1.0f - s));
      out[i + g.size()] = g[i] * gate * s;
    }
    store(out.data(), dx.dtype, row * width, width, dx.data);
  }
}

class Activation : public PlainRules {
 public:
  explicit Activation(const ActivationParam& param)
      : PlainRules(kName, param.activationType == infer::ACTIVATION_SWIGLU_BACKWARD ? 2 : 1, 1), param_(param) {}

 protected:
  std::string key() const override { return std::string(kName) + suffix(param_.activationType); }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const bool forward = param_.activationType == infer::ACTIVATION_SWIGLU_FORWARD;
    out[0] = in.back();
    if (!forward && in.size() == 1) return NO_ERROR;
    Sizes halved = sizes(in.back());
    if (halved.back() % 2 != 0) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the last dimension of ", text(in.back()), " is odd");
    }
    halved.back() /= 2;
    if (forward) {
      out[0] = with_sizes(in[0], halved);
    } else if (sizes(in[0]) != halved) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "dy ", text(in[0]), " is not half of x ", text(in[1]));
    }
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const bool limited = family() == Family::i310p && param_.activationType == infer::ACTIVATION_SWIGLU_FORWARD;
    if (!limited || dim(in[0], -1) % kSwigluStep310p == 0) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "on 310P SWIGLU_FORWARD wants a last dimension that is a multiple of ",
                  kSwigluStep310p, ", not ", text(in[0]));
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      if (param.activationType == infer::ACTIVATION_SWIGLU_FORWARD) return swiglu(in[0], out[0]);
      if (in.size() == 2) return swiglu_backward(in[0], in[1], out[0]);
      std::vector<float> values(static_cast<size_t>(in[0].count()));
      load(in[0].data, in[0].dtype, 0, in[0].count(), values.data());
      for (float& value : values) value = apply(param, value);
      store(values.data(), out[0].dtype, 0, in[0].count(), out[0].data);
    };
  }

 private:
  ActivationParam param_;
};

}  // namespace

Status make_rules(const ActivationParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  if (suffix(param.activationType) == nullptr) {
    return reject(ERROR_INVALID_PARAM, kName, ": activationType ", static_cast<int>(param.activationType),
                  " does not exist");
  }
  if (param.dim != -1) return reject(ERROR_INVALID_PARAM, kName, ": dim is ", param.dim, ", only -1 is allowed");
  rules = std::make_unique<Activation>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
