// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include "ops/columns.h"
#include "ops/matmul.h"
#include "ops/numeric.h"
#include "ops/quantize.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::LinearParam;

class Linear : public Rules {
 public:
  explicit Linear(const LinearParam& param)
      : Rules("LinearOperation", param.hasBias || param.enAccum ? 3 : 2, 1), param_(param) {}

  std::vector<std::pair<uint32_t, uint32_t>> in_place() const override {
    if (param_.enAccum) return {{0, 2}};
    return {};
  }
  uint64_t workspace(const std::vector<TensorDesc>& out) const override { return tiled_workspace(out[0]); }

 protected:
  std::string key() const override {
    if (param_.enAccum) return "LinearOperationMatmulAccum";
    return param_.hasBias ? "LinearOperationMatmulWithBias" : "LinearOperationMatmul";
  }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    MatmulShape shape;
    ATB_SIM_TRY(matmul_shape(name(), in[0], in[1], param_.transposeA, param_.transposeB, shape));
    const Sizes result = matmul_sizes(shape);
    if (param_.hasBias) ATB_SIM_TRY(check_bias(name(), shape, in[2]));
    if (param_.enAccum && sizes(in[2]) != result) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "accum has the shape ", text(in[2]), ", the product ", text(result));
    }
    out[0] = describe(param_.enAccum ? ACL_FLOAT : in[0].dtype, result);
    return NO_ERROR;
  }

  // Matrices of float32 go to another kernel, which was made for the scores of experts.
  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    if (in[0].dtype != ACL_FLOAT) return NO_ERROR;
    if (rank(in[0]) == 2 && rank(in[1]) == 2 && !param_.transposeA && param_.transposeB) return NO_ERROR;
    return refuse(ERROR_INVALID_PARAM, "float32 takes x [m, k] and a weight [n, k] with transposeB alone, not x ",
                  text(in[0]), " and a weight ", text(in[1]), " with transposeA ", param_.transposeA,
                  " and transposeB ", param_.transposeB);
  }

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&, const std::vector<const int32_t*>&,
                 Kernel& kernel) const override {
    MatmulShape shape;
    ATB_SIM_TRY(matmul_shape(name(), in[0], in[1], param_.transposeA, param_.transposeB, shape));
    const bool bias = param_.hasBias, accumulate = param_.enAccum;
    // A 910B adds a bias of the type of x by an Elewise behind the product, which is rounded by then.
    const bool rounded = bias && family() == Family::a2 && in[2].dtype == in[0].dtype;
    kernel = [shape, bias, rounded, accumulate](const Views& x, const Views& y) {
      std::vector<float> out = matmul(shape, x[0], x[1]);
      if (rounded) round_to(y[0].dtype, out);
      if (bias) add_bias(shape, x[2], out);
      if (accumulate) {
        const auto* before = reinterpret_cast<const float*>(x[2].data);
        for (size_t i = 0; i < out.size(); ++i) out[i] += before[i];
      }
      store(out.data(), y[0].dtype, 0, static_cast<int64_t>(out.size()), y[0].data);
    };
    return NO_ERROR;
  }

 private:
  LinearParam param_;
};

}  // namespace

Status make_rules(const LinearParam& param, std::unique_ptr<OpRules>& rules) {
  constexpr const char* kName = "LinearOperation";
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  if (param.matmulType != LinearParam::MATMUL_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": matmulType ", int{param.matmulType}, " is not in the simulator");
  }
  if (param.outDataType != ACL_DT_UNDEFINED || param.quantMode != LinearParam::QUANT_UNDEFINED) {
    return make_quant_linear(param, rules);
  }
  if (param.enAccum && (param.hasBias || family() != Family::a2)) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": enAccum is there on 910B only and excludes hasBias (which is true unless set)");
  }
  rules = std::make_unique<Linear>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
