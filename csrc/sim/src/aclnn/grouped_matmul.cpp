// SPDX-License-Identifier: Apache-2.0
// aclnnGroupedMatmulV4 of A2 and A3, groups of rows with one tensor each of x, weight and result.
#include "aclnn/executor.h"
#include "ops/columns.h"
#include "ops/simd.h"
#include "state.h"

namespace atb::sim {
namespace {

constexpr const char* kName = "aclnnGroupedMatmulV4";
constexpr int64_t kMostGroups = 1024;
constexpr int64_t kMostWidth = 65535;

struct Given {
  const aclTensor *x, *weight, *bias, *groups, *y;
  int64_t m() const { return x->dims[0]; }
  int64_t k() const { return x->dims[1]; }
  int64_t n() const { return weight->dims[2]; }
};

template <typename... Parts>
aclnnStatus invalid(const Parts&... parts) {
  return reject(kInvalid, kName, ": ", parts...);
}

aclnnStatus check_types(const Given& g) {
  const aclDataType type = g.x->dtype;
  if (type != ACL_FLOAT16 && type != ACL_BF16 && type != ACL_FLOAT) {
    return invalid("x is ", describe(g.x), "; the simulator takes floats alone");
  }
  if (g.weight->dtype != type || g.y->dtype != type) {
    return invalid("x ", describe(g.x), ", weight ", describe(g.weight), " and out ", describe(g.y), " differ in type");
  }
  const aclDataType bias = type == ACL_FLOAT16 ? ACL_FLOAT16 : ACL_FLOAT;
  if (g.bias != nullptr && g.bias->dtype != bias) return invalid("beside ", text(type), " a bias is ", text(bias));
  if (g.groups->dtype != ACL_INT64) return invalid("groupList is ", describe(g.groups), ", not int64");
  return ACL_SUCCESS;
}

aclnnStatus check_shapes(const Given& g) {
  if (g.x->dims.size() != 2 || g.weight->dims.size() != 3 || g.y->dims.size() != 2 || g.groups->dims.size() != 1) {
    return invalid("x, weight, out and groupList have ", g.x->dims.size(), ", ", g.weight->dims.size(), ", ",
                   g.y->dims.size(), " and ", g.groups->dims.size(), " dimensions, not 2, 3, 2 and 1");
  }
  const int64_t groups = g.weight->dims[0];
  if (g.groups->dims[0] != groups || groups > kMostGroups) {
    return invalid("the weight ", describe(g.weight), " does not go with groupList ", describe(g.groups),
                   " of up to 1024");
  }
  if (g.weight->dims[1] != g.k()) return invalid("x ", describe(g.x), " and ", describe(g.weight), " differ in k");
  if (g.y->dims != Sizes{g.m(), g.n()}) return invalid("out is ", describe(g.y), ", not [m, n]");
  if (g.bias != nullptr && g.bias->dims != Sizes{groups, g.n()}) return invalid("the bias is ", describe(g.bias));
  if (!contiguous(*g.x) || !contiguous(*g.y) || !(contiguous(*g.weight) || turned(*g.weight))) {
    return invalid("x and out lie in rows, and the weight in rows or transposed");
  }
  const int64_t width = turned(*g.weight) ? g.k() : g.n();
  if (width > kMostWidth || g.k() > kMostWidth) return invalid("the last dimension of x or weight is above 65535");
  return ACL_SUCCESS;
}

// Tensors: x, weight, groupList, out, and bias where it is.
void multiply(const std::vector<aclTensor>& tensors) {
  const int64_t m = tensors[0].dims[0], k = tensors[0].dims[1], n = tensors[1].dims[2];
  const std::vector<int64_t> ends = integers(tensors[2]);
  for (size_t group = 0; group < ends.size(); ++group) {
    if (ends[group] < (group == 0 ? 0 : ends[group - 1])) throw std::runtime_error("groupList decreases");
  }
  if (ends.back() != m) throw std::runtime_error("groupList does not end with the rows of x");
  // The weights as [groups, n, k].
  aclTensor weight = tensors[1];
  std::swap(weight.dims[1], weight.dims[2]);
  std::swap(weight.strides[1], weight.strides[2]);
  const std::vector<float> x = values(tensors[0]), w = values(weight);
  const std::vector<float> bias = tensors.size() > 4 ? values(tensors[4]) : std::vector<float>(ends.size() * n);
  std::vector<float> out(static_cast<size_t>(m * n));
  for (int64_t row = 0, group = 0; row < m; ++row) {
    while (ends[static_cast<size_t>(group)] <= row) ++group;
    dot_rows(x.data() + row * k, w.data() + group * n * k, k, k, n, out.data() + row * n);
    add_scaled(1.0f, bias.data() + group * n, n, out.data() + row * n);
  }
  assign(tensors[3], out);
}

// Returns the only tensor of a list, null if there is none or more.
const aclTensor* only(const aclTensorList* list) {
  return lives(list) && list->tensors.size() == 1 && lives(list->tensors[0]) ? list->tensors[0] : nullptr;
}

using List = const aclTensorList*;

}  // namespace
}  // namespace atb::sim

using namespace atb::sim;

extern "C" {

aclnnStatus aclnnGroupedMatmulV4GetWorkspaceSize(
    List x, List weight, List bias, List scale, List offset, List antiquant_scale, List antiquant_offset,
    List token_scale, const aclTensor* group_list, List activation_input, List activation_scale, List activation_offset,
    int64_t split_item, int64_t group_type, int64_t group_list_type, int64_t act_type, aclTensorList* out,
    aclTensorList* activation_out, aclTensorList* dynamic_scale, uint64_t* workspace, aclOpExecutor** executor) {
  ATB_SIM_CALL("aclnnGroupedMatmulV4GetWorkspaceSize");
  const Given given{only(x), only(weight), only(bias), group_list, only(out)};
  for (const aclTensor* tensor : {given.x, given.weight, given.groups, given.y}) {
    if (!lives(tensor)) return reject(kNullPointer, kName, ": x, weight, out or groupList is null or no single tensor");
  }
  if (family() != Family::a2) return reject(kUnsupported, kName, ": the simulator has it on 910B only");
  for (List other : {scale, offset, antiquant_scale, antiquant_offset, token_scale, activation_input, activation_scale,
                     activation_offset, List{activation_out}, List{dynamic_scale}}) {
    if (other != nullptr) return invalid("the simulator multiplies floats alone");
  }
  if ((split_item != 2 && split_item != 3) || group_type != 0 || group_list_type != 0 || act_type != 0) {
    return invalid("splitItem ", split_item, ", groupType ", group_type, ", groupListType ", group_list_type,
                   " and actType ", act_type, " are not in the simulator, which has 3, 0, 0 and 0");
  }
  ATB_SIM_TRY(check_types(given));
  ATB_SIM_TRY(check_shapes(given));
  const aclTensor& y = *given.y;
  Plan plan{kName, {*given.x, *given.weight, *given.groups, y}, tiled_workspace(describe(y.dtype, y.dims)), &multiply};
  if (given.bias != nullptr) plan.tensors.push_back(*given.bias);
  return planned(std::move(plan), workspace, executor);
}

aclnnStatus aclnnGroupedMatmulV4(void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
  return execute(kName, workspace, bytes, executor, stream);
}

}  // extern "C"

namespace atb::sim {

void* grouped_matmul_symbol(std::string_view name) {
  if (name == "aclnnGroupedMatmulV4GetWorkspaceSize")
    return reinterpret_cast<void*>(&aclnnGroupedMatmulV4GetWorkspaceSize);
  return name == kName ? reinterpret_cast<void*>(&aclnnGroupedMatmulV4) : nullptr;
}

}  // namespace atb::sim
