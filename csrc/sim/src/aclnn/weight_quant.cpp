// SPDX-License-Identifier: Apache-2.0
// aclnnWeightQuantBatchMatmulV2 of A2, A3 and 310P: x [m, k] times (weight + offset) * scale, plus bias.
#include "aclnn/executor.h"
#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/simd.h"
#include "state.h"

namespace atb::sim {
namespace {

constexpr const char* kName = "aclnnWeightQuantBatchMatmulV2";
constexpr int64_t kMostSize = 65535;

struct Given {
  const aclTensor *x, *weight, *scale, *offset, *bias, *y;
  int group;
  int64_t m() const { return x->dims[0]; }
  int64_t k() const { return x->dims[1]; }
  int64_t n() const { return weight->dims[1]; }
};

template <typename... Parts>
aclnnStatus invalid(const Parts&... parts) {
  return reject(kInvalid, kName, ": ", parts...);
}

aclnnStatus check_types(const Given& g) {
  const aclDataType type = g.x->dtype, weight = g.weight->dtype;
  if (family() == Family::i310p && (type != ACL_FLOAT16 || weight != ACL_INT8)) {
    return invalid("on a 310P x is float16 and the weight int8, not ", describe(g.x), " and ", describe(g.weight));
  }
  if (type != ACL_FLOAT16 && type != ACL_BF16) return invalid("x is ", text(type), ", not float16 or bfloat16");
  // INT32 stands for eight integers of four bits and needs a conversion by another call.
  if (weight != ACL_INT8 && weight != ACL_INT4)
    return invalid("the weight is ", describe(g.weight), ", not int8 or int4");
  if (g.scale->dtype != type) return invalid("antiquantScale is ", text(g.scale->dtype), ", x ", text(type));
  if (g.offset && g.offset->dtype != type) return invalid("antiquantOffset is ", text(g.offset->dtype));
  if (g.y->dtype != type) return invalid("y is ", text(g.y->dtype), ", x ", text(type));
  const aclDataType bias = type == ACL_BF16 ? ACL_FLOAT : ACL_FLOAT16;
  if (g.bias && g.bias->dtype != bias) return invalid("beside ", text(type), " a bias is ", text(bias));
  for (const aclTensor* tensor : {g.x, g.weight, g.scale, g.y}) {
    if (tensor->format != ACL_FORMAT_ND) return invalid("the simulator takes the format ND alone");
  }
  return ACL_SUCCESS;
}

aclnnStatus check_group(const Given& g) {
  if (g.group == 0) return ACL_SUCCESS;
  // The call's page has groups there, torch_npu's has not.
  if (family() == Family::i310p) return invalid("on a 310P there are no groups, and antiquantGroupSize is ", g.group);
  if (g.group < 32 || g.group >= g.k() || g.group % 32 != 0) {
    return invalid("antiquantGroupSize ", g.group, " is no multiple of 32 from 32 to k - 1 = ", g.k() - 1);
  }
  return ACL_SUCCESS;
}

aclnnStatus check_shapes(const Given& g) {
  if (g.x->dims.size() != 2 || g.weight->dims.size() != 2) {
    return invalid("x ", describe(g.x), " and the weight ", describe(g.weight), " are not two matrices");
  }
  if (g.weight->dims[0] != g.k()) return invalid("x ", describe(g.x), " and ", describe(g.weight), " differ in k");
  if (g.k() < 1 || g.k() > kMostSize || g.n() < 1 || g.n() > kMostSize) {
    return invalid("k and n are ", g.k(), " and ", g.n(), ", not 1 to 65535");
  }
  if (!contiguous(*g.x) || !contiguous(*g.y)) return invalid("the simulator takes x and y in rows alone");
  if (!contiguous(*g.weight) && !turned(*g.weight)) return invalid("the weight is neither in rows nor transposed");
  if (g.weight->dtype == ACL_INT4 && g.weight->storage.back() % 2 != 0) {
    return invalid("the inner axis of int4 is even, not ", text(g.weight->storage));
  }
  ATB_SIM_TRY(check_group(g));
  const int64_t groups = g.group == 0 ? 1 : (g.k() + g.group - 1) / g.group;
  // Scales of rows are [n], or a matrix of one row, or on a 310P of one column.
  const Sizes rows = family() == Family::i310p ? Sizes{g.n(), 1} : Sizes{groups, g.n()};
  const bool fits = g.scale->dims == rows || (g.group == 0 && g.scale->dims == Sizes{g.n()});
  if (!fits || !contiguous(*g.scale)) return invalid("antiquantScale is ", describe(g.scale), ", not ", text(rows));
  if (g.offset && g.offset->dims != g.scale->dims) return invalid("antiquantOffset differs from antiquantScale");
  if (g.bias && g.bias->dims != Sizes{g.n()} && g.bias->dims != Sizes{1, g.n()}) {
    return invalid("bias is ", describe(g.bias), ", not [n] with n = ", g.n());
  }
  if (g.y->dims != Sizes{g.m(), g.n()}) return invalid("y is ", describe(g.y), ", not [m, n]");
  return ACL_SUCCESS;
}

// The weight as [n, k], each element rounded to the type of x, in which the kernel multiplies.
std::vector<float> weight_rows(const aclTensor& weight, const aclTensor& scale, const aclTensor* offset, int64_t group,
                               aclDataType type) {
  const int64_t k = weight.dims[0], n = weight.dims[1];
  const std::vector<float> q = values(weight), factors = values(scale);
  const std::vector<float> added = offset ? values(*offset) : std::vector<float>(factors.size());
  std::vector<float> rows(q.size());
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const auto at = static_cast<size_t>((group == 0 ? 0 : i / group) * n + j);
      rows[static_cast<size_t>(j * k + i)] = (q[static_cast<size_t>(i * n + j)] + added[at]) * factors[at];
    }
  }
  round_to(type, rows);
  return rows;
}

// Tensors: x, weight, scale, y, then offset and bias where they are.
void multiply(const std::vector<aclTensor>& tensors, int64_t group, bool has_offset, bool has_bias) {
  const aclTensor& x = tensors[0];
  const aclTensor* offset = has_offset ? &tensors[4] : nullptr;
  const int64_t m = x.dims[0], k = x.dims[1], n = tensors[1].dims[1];
  const std::vector<float> left = values(x), right = weight_rows(tensors[1], tensors[2], offset, group, x.dtype);
  std::vector<float> out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) dot_rows(left.data() + i * k, right.data(), k, k, n, out.data() + i * n);
  if (has_bias) {
    const std::vector<float> bias = values(tensors[has_offset ? 5 : 4]);
    for (size_t i = 0; i < out.size(); ++i) out[i] += bias[i % bias.size()];
  }
  assign(tensors[3], out);
}

}  // namespace
}  // namespace atb::sim

using namespace atb::sim;

extern "C" {

aclnnStatus aclnnWeightQuantBatchMatmulV2GetWorkspaceSize(const aclTensor* x, const aclTensor* weight,
                                                          const aclTensor* scale, const aclTensor* offset,
                                                          const aclTensor* quant_scale, const aclTensor* quant_offset,
                                                          const aclTensor* bias, int group, const aclTensor* y,
                                                          uint64_t* workspace, aclOpExecutor** executor) {
  ATB_SIM_CALL("aclnnWeightQuantBatchMatmulV2GetWorkspaceSize");
  for (const aclTensor* tensor : {x, weight, scale, y}) {
    if (!lives(tensor)) return reject(kNullPointer, kName, ": x, weight, antiquantScale or y is null");
  }
  if (family() != Family::a2 && family() != Family::i310p) {
    return reject(kUnsupported, kName, ": it exists on 910B and 310P");
  }
  if (quant_scale != nullptr || quant_offset != nullptr) return invalid("the simulator makes no results of int8");
  const Given given{x, weight, scale, offset, bias, y, group};
  ATB_SIM_TRY(check_types(given));
  ATB_SIM_TRY(check_shapes(given));
  Plan plan{kName, {*x, *weight, *scale, *y}, tiled_workspace(describe(y->dtype, y->dims)), {}};
  for (const aclTensor* tensor : {offset, bias}) {
    if (tensor != nullptr) plan.tensors.push_back(*tensor);
  }
  plan.kernel = [group, offset = offset != nullptr, bias = bias != nullptr](const std::vector<aclTensor>& tensors) {
    multiply(tensors, group, offset, bias);
  };
  return planned(std::move(plan), workspace, executor);
}

aclnnStatus aclnnWeightQuantBatchMatmulV2(void* workspace, uint64_t bytes, aclOpExecutor* executor,
                                          aclrtStream stream) {
  return execute(kName, workspace, bytes, executor, stream);
}

}  // extern "C"

namespace atb::sim {

void* weight_quant_symbol(std::string_view name) {
  if (name == "aclnnWeightQuantBatchMatmulV2GetWorkspaceSize")
    return reinterpret_cast<void*>(&aclnnWeightQuantBatchMatmulV2GetWorkspaceSize);
  if (name == kName) return reinterpret_cast<void*>(&aclnnWeightQuantBatchMatmulV2);
  return nullptr;
}

}  // namespace atb::sim
