// SPDX-License-Identifier: Apache-2.0
#include "ops/quantize.h"

#include <algorithm>
#include <cmath>

#include "ops/columns.h"
#include "ops/matmul.h"
#include "ops/numeric.h"
#include "ops/shapes.h"

namespace atb::sim {
namespace {

using infer::ElewiseParam;
using infer::LinearParam;

std::vector<float> floats(const View& x) {
  std::vector<float> values(static_cast<size_t>(x.count()));
  load(x.data, x.dtype, 0, x.count(), values.data());
  return values;
}

class QuantPerChannel : public PlainRules {
 public:
  QuantPerChannel() : PlainRules("ElewiseOperation", 3, 1) {}

 protected:
  std::string key() const override { return "ElewiseOperationQUANT_PER_CHANNEL"; }
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const bool fits = rank(in[1]) == 1 && (dim(in[1], 0) == 1 || dim(in[1], 0) == dim(in[0], -1));
    if (!fits || sizes(in[2]) != sizes(in[1])) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the scale ", text(in[1]), " and the offset ", text(in[2]),
                    " do not fit x ", text(in[0]));
    }
    out[0] = in[0];
    out[0].dtype = ACL_INT8;
    return NO_ERROR;
  }
  Kernel kernel() const override {
    return [](const Views& in, const Views& out) {
      const std::vector<float> x = floats(in[0]), scale = floats(in[1]);
      auto* y = reinterpret_cast<int8_t*>(out[0].data);
      for (size_t i = 0; i < x.size(); ++i) {
        const size_t channel = i % scale.size();
        const auto offset = static_cast<float>(load_integer(in[2].data, ACL_INT8, static_cast<int64_t>(channel)));
        y[i] = to_int8(x[i] / scale[channel] + offset);
      }
    };
  }
};

class DynamicQuant : public PlainRules {
 public:
  DynamicQuant() : PlainRules("ElewiseOperation", 1, 2) {}

 protected:
  std::string key() const override { return "ElewiseOperationDYNAMIC_QUANT"; }
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    if (rank(in[0]) < 2) return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "DYNAMIC_QUANT takes no x ", text(in[0]));
    out[0] = in[0];
    out[0].dtype = ACL_INT8;
    Sizes rows = sizes(in[0]);
    rows.pop_back();
    out[1] = describe(ACL_FLOAT, rows);
    return NO_ERROR;
  }
  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const int64_t most = family() == Family::i310p ? 4096 : in[0].dtype == ACL_BF16 ? 7552 : 26624;
    if (dim(in[0], -1) <= most) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "DYNAMIC_QUANT takes rows of at most ", most, " elements, not ",
                  text(in[0]));
  }
  Kernel kernel() const override {
    return [](const Views& in, const Views& out) {
      const std::vector<float> x = floats(in[0]);
      const auto width = static_cast<size_t>(in[0].dims.back());
      auto* y = reinterpret_cast<int8_t*>(out[0].data);
      auto* scales = reinterpret_cast<float*>(out[1].data);
      for (size_t row = 0; row * width < x.size(); ++row) {
        float largest = 0;
        for (size_t i = row * width; i < (row + 1) * width; ++i) largest = std::max(largest, std::fabs(x[i]));
        scales[row] = largest / 127;
        for (size_t i = row * width; i < (row + 1) * width; ++i) y[i] = to_int8(x[i] / scales[row]);
      }
    };
  }
};

// The weight of a product of int8 as [n, k], whatever its layout; an NZ block has 32 columns.
std::vector<int8_t> rows_of_weight(const MatmulShape& s, const View& weight) {
  constexpr int64_t kLanes = 32;
  std::vector<int8_t> rows(static_cast<size_t>(s.n * s.k));
  const auto* from = reinterpret_cast<const int8_t*>(weight.data);
  for (int64_t n = 0; n < s.n; ++n) {
    for (int64_t k = 0; k < s.k; ++k) {
      const int64_t row = s.transpose_b ? n : k, column = s.transpose_b ? k : n;
      const int64_t height = s.transpose_b ? s.n : s.k, width = s.transpose_b ? s.k : s.n;
      const int64_t at = s.nz ? (column / kLanes * height + row) * kLanes + column % kLanes : row * width + column;
      rows[static_cast<size_t>(n * s.k + k)] = from[at];
    }
  }
  return rows;
}

// In 16 bits the scales of the outputs are the bits of floats in integers.
std::vector<float> output_scales(const View& scale) {
  if (scale.dtype == ACL_FLOAT) return floats(scale);
  std::vector<float> values(static_cast<size_t>(scale.count()));
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(&values[i], scale.data + i * sizeof(uint64_t), sizeof(float));
  return values;
}

class QuantLinear : public PlainRules {
 public:
  explicit QuantLinear(const LinearParam& param)
      : PlainRules("LinearOperation", 3u + (param.hasBias ? 1 : 0) + (per_token(param) ? 1 : 0), 1), param_(param) {}

  static bool per_token(const LinearParam& param) { return param.quantMode == LinearParam::PER_TOKEN; }

 protected:
  std::string key() const override {
    return std::string("LinearOperationMatmulDequant") + (param_.hasBias ? "WithBias" : "") +
           (per_token(param_) ? "PerToken" : "") + (param_.outDataType == ACL_BF16 ? "Bf16" : "Float16");
  }
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    MatmulShape shape;
    ATB_SIM_TRY(matmul_shape(name(), in[0], in[1], param_.transposeA, param_.transposeB, shape));
    if (shape.weight_batch != 1) return refuse(ERROR_INVALID_TENSOR_DIM, "the weight of int8 has batches");
    if (param_.hasBias) ATB_SIM_TRY(check_bias(name(), shape, in[2]));
    const size_t scale = param_.hasBias ? 3 : 2;
    ATB_SIM_TRY(check_bias(name(), shape, in[scale]));
    if (per_token(param_) && (shape.x_is_3d || sizes(in[scale + 1]) != Sizes{shape.m})) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "PER_TOKEN takes x [m, k] and scales [m], not ", text(in[0]), " and ",
                    text(in[scale + 1]));
    }
    out[0] = describe(param_.outDataType, matmul_sizes(shape));
    return NO_ERROR;
  }
  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      MatmulShape s;
      const auto described = [](const View& view) {
        TensorDesc desc = describe(view.dtype, view.dims);
        desc.format = view.format;
        return desc;
      };
      if (matmul_shape("", described(in[0]), described(in[1]), false, param.transposeB, s) != NO_ERROR) {
        throw std::runtime_error("a product of int8 lost its shape");
      }
      const std::vector<int8_t> weight = rows_of_weight(s, in[1]);
      const size_t at = param.hasBias ? 3 : 2;
      const std::vector<float> scales = output_scales(in[at]);
      const auto* x = reinterpret_cast<const int8_t*>(in[0].data);
      std::vector<float> row(static_cast<size_t>(s.n));
      for (int64_t i = 0; i < s.batch * s.m; ++i) {
        for (int64_t j = 0; j < s.n; ++j) {
          uint32_t sum = param.hasBias ? static_cast<uint32_t>(load_integer(in[2].data, ACL_INT32, j)) : 0;
          int32_t products = 0;
          for (int64_t k = 0; k < s.k; ++k) products += x[i * s.k + k] * weight[static_cast<size_t>(j * s.k + k)];
          sum += static_cast<uint32_t>(products);
          row[static_cast<size_t>(j)] = static_cast<float>(static_cast<int32_t>(sum)) * scales[static_cast<size_t>(j)];
          if (per_token(param)) row[static_cast<size_t>(j)] *= reinterpret_cast<const float*>(in[at + 1].data)[i];
        }
        store(row.data(), out[0].dtype, i * s.n, s.n, out[0].data);
      }
    };
  }

 private:
  LinearParam param_;
};

}  // namespace

int8_t to_int8(float value) {
  return static_cast<int8_t>(std::isnan(value) ? 0.0f : std::clamp(std::rint(value), -128.0f, 127.0f));
}

Status make_quantizer(const ElewiseParam& param, RulesPtr& rules) {
  constexpr const char* kName = "ElewiseOperation";
  if (param.elewiseType == ElewiseParam::ELEWISE_QUANT_PER_CHANNEL) {
    rules = std::make_unique<QuantPerChannel>();
  } else if (param.elewiseType == ElewiseParam::ELEWISE_DYNAMIC_QUANT) {
    if (param.quantParam.asymmetric) return reject(ERROR_INVALID_PARAM, kName, ": DYNAMIC_QUANT is symmetric only");
    rules = std::make_unique<DynamicQuant>();
  } else {
    return reject(ERROR_INVALID_PARAM, kName, ": elewiseType ", int{param.elewiseType}, " is not in the simulator");
  }
  return NO_ERROR;
}

Status make_quant_linear(const LinearParam& param, RulesPtr& rules) {
  constexpr const char* kName = "LinearOperation";
  if (param.outDataType != ACL_FLOAT16 && param.outDataType != ACL_BF16) {
    return reject(ERROR_INVALID_PARAM, kName, ": outDataType of quantised weights is ", text(param.outDataType),
                  ", not float16 or bfloat16");
  }
  if (param.transposeA || param.enAccum) {
    return reject(ERROR_INVALID_PARAM, kName, ": quantised weights exclude transposeA and enAccum");
  }
  if (QuantLinear::per_token(param) && (param.hasBias || family() != Family::a2)) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": PER_TOKEN is there on 910B only and excludes hasBias (which is true unless set)");
  }
  if (family() == Family::i310p && !(param.hasBias && param.transposeB)) {
    return reject(ERROR_INVALID_PARAM, kName, ": quantised weights need hasBias and transposeB on 310P");
  }
  rules = std::make_unique<QuantLinear>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
