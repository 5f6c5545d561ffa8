// SPDX-License-Identifier: Apache-2.0
// aclnnMoeGatingTopKSoftmaxV2, aclnnMoeInitRoutingV2 and aclnnMoeTokenUnpermute of A2 and A3.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "aclnn/executor.h"
#include "ops/columns.h"
#include "state.h"

namespace atb::sim {
namespace {

constexpr const char* kGating = "aclnnMoeGatingTopKSoftmaxV2";
constexpr const char* kRouting = "aclnnMoeInitRoutingV2";
constexpr const char* kUnpermute = "aclnnMoeTokenUnpermute";
constexpr int64_t kMostRanked = 1024;
constexpr int64_t kMostChosen = 512;

bool is_float(const aclTensor& tensor) {
  return tensor.dtype == ACL_FLOAT || tensor.dtype == ACL_FLOAT16 || tensor.dtype == ACL_BF16;
}

// Checks what all three calls do: the device, tensors that are there, and rows.
aclnnStatus check_common(const char* call, std::initializer_list<const aclTensor*> tensors) {
  for (const aclTensor* tensor : tensors) {
    if (!lives(tensor)) return reject(kNullPointer, call, ": a tensor is null");
    if (!contiguous(*tensor)) return reject(kInvalid, call, ": the simulator takes tensors in rows alone");
  }
  if (family() == Family::a2) return ACL_SUCCESS;
  return reject(kUnsupported, call, ": the simulator has it on 910B only");
}

aclnnStatus check_is(const char* call, const char* what, const aclTensor* tensor, aclDataType dtype,
                     const Sizes& shape) {
  if (tensor->dtype != dtype)
    return reject(kInvalid, call, ": ", what, " is ", describe(tensor), ", not ", text(dtype));
  if (tensor->dims == shape) return ACL_SUCCESS;
  return reject(kTiling, call, ": ", what, " is ", describe(tensor), ", not ", text(shape));
}

// Among equal logits the first comes first, which is not documented.
void rank_experts(const std::vector<aclTensor>& tensors, bool among_chosen) {
  const int64_t tokens = tensors[0].dims[0], experts = tensors[0].dims[1], count = tensors[1].dims[1];
  const std::vector<float> x = values(tensors[0]);
  std::vector<float> weights;
  std::vector<int64_t> chosen, order(static_cast<size_t>(experts));
  for (int64_t token = 0; token < tokens; ++token) {
    const float* row = x.data() + token * experts;
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [row](int64_t a, int64_t b) { return row[a] > row[b]; });
    float sum = 0;
    for (int64_t j = 0; j < (among_chosen ? count : experts); ++j) {
      sum += std::exp(row[order[static_cast<size_t>(j)]] - row[order[0]]);
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t expert = order[static_cast<size_t>(j)];
      chosen.push_back(expert);
      weights.push_back(std::exp(row[expert] - row[order[0]]) / sum);
    }
  }
  assign(tensors[1], weights);
  assign(tensors[2], chosen);
}

// Tensors: x, experts, rows, places, ends.
void route(const std::vector<aclTensor>& tensors) {
  const std::vector<float> x = values(tensors[0]);
  const std::vector<int64_t> chosen = integers(tensors[1]);
  const int64_t width = tensors[0].dims[1], count = tensors[1].dims[1], experts = tensors[4].dims[0];
  std::vector<int64_t> order(chosen.size()), places(chosen.size()), ends(static_cast<size_t>(experts));
  std::iota(order.begin(), order.end(), int64_t{0});
  const auto expert_of = [&](int64_t choice) { return chosen[static_cast<size_t>(choice)]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return expert_of(a) < expert_of(b); });
  std::vector<float> rows;
  for (size_t place = 0; place < order.size(); ++place) {
    const int64_t choice = order[place], expert = expert_of(choice);
    if (expert < 0 || expert >= experts) throw std::runtime_error("an expert does not exist");
    places[static_cast<size_t>(choice)] = static_cast<int64_t>(place);
    const float* row = x.data() + choice / count * width;
    rows.insert(rows.end(), row, row + width);
    ++ends[static_cast<size_t>(expert)];
  }
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  assign(tensors[2], rows);
  assign(tensors[3], places);
  assign(tensors[4], ends);
}

// Tensors: rows, places, probs, out.
void combine(const std::vector<aclTensor>& tensors) {
  const std::vector<float> rows = values(tensors[0]), probs = values(tensors[2]);
  const std::vector<int64_t> places = integers(tensors[1]);
  const int64_t width = tensors[0].dims[1], count = tensors[2].dims[1];
  std::vector<float> out(static_cast<size_t>(tensors[3].dims[0] * width));
  for (size_t choice = 0; choice < places.size(); ++choice) {
    if (places[choice] < 0 || places[choice] >= tensors[0].dims[0]) throw std::runtime_error("a row does not exist");
    const float* row = rows.data() + places[choice] * width;
    float* sum = out.data() + static_cast<int64_t>(choice) / count * width;
    for (int64_t i = 0; i < width; ++i) sum[i] += row[i] * probs[choice];
  }
  assign(tensors[3], out);
}

}  // namespace
}  // namespace atb::sim

using namespace atb::sim;

extern "C" {

aclnnStatus aclnnMoeGatingTopKSoftmaxV2GetWorkspaceSize(const aclTensor* x, const aclTensor* finished, int64_t k,
                                                        int64_t renorm, bool with_softmax, const aclTensor* y,
                                                        const aclTensor* experts, const aclTensor* softmax,
                                                        uint64_t* workspace, aclOpExecutor** executor) {
  ATB_SIM_CALL("aclnnMoeGatingTopKSoftmaxV2GetWorkspaceSize");
  ATB_SIM_TRY(check_common(kGating, {x, y, experts}));
  if (!is_float(*x)) return reject(kInvalid, kGating, ": x is ", describe(x));
  if (finished != nullptr || with_softmax || softmax != nullptr) {
    return reject(kInvalid, kGating, ": finished and the softmax of all experts are not in the simulator");
  }
  if (x->dims.size() != 2)
    return reject(kTiling, kGating, ": x is ", describe(x), "; the simulator takes [tokens, experts]");
  if (k < 1 || k > x->dims[1] || k > kMostRanked) return reject(kTiling, kGating, ": k is ", k, " of ", x->dims[1]);
  if (renorm != 0 && renorm != 1) return reject(kTiling, kGating, ": renorm is ", renorm);
  const Sizes shape = {x->dims[0], k};
  ATB_SIM_TRY(check_is(kGating, "y", y, x->dtype, shape));
  ATB_SIM_TRY(check_is(kGating, "expertIdx", experts, ACL_INT32, shape));
  return planned({kGating,
                  {*x, *y, *experts},
                  tiled_workspace(describe(ACL_FLOAT, shape)),
                  [renorm](const std::vector<aclTensor>& tensors) { rank_experts(tensors, renorm == 1); }},
                 workspace, executor);
}

aclnnStatus aclnnMoeGatingTopKSoftmaxV2(void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
  return execute(kGating, workspace, bytes, executor, stream);
}

aclnnStatus aclnnMoeInitRoutingV2GetWorkspaceSize(const aclTensor* x, const aclTensor* experts, int64_t active,
                                                  int64_t capacity, int64_t expert_num, int64_t drop_mode,
                                                  int64_t count_flag, bool before_flag, const aclTensor* rows,
                                                  const aclTensor* places, const aclTensor* ends,
                                                  const aclTensor* before, uint64_t* workspace,
                                                  aclOpExecutor** executor) {
  ATB_SIM_CALL("aclnnMoeInitRoutingV2GetWorkspaceSize");
  ATB_SIM_TRY(check_common(kRouting, {x, experts, rows, places, ends}));
  if (!is_float(*x) || experts->dtype != ACL_INT32) {
    return reject(kInvalid, kRouting, ": x is ", describe(x), " and expertIdx ", describe(experts));
  }
  if (active != 0 || capacity != 0 || drop_mode != 0 || count_flag != 1 || before_flag || before != nullptr) {
    return reject(kInvalid, kRouting, ": only the mode without drops, with cumulative counts, is in the simulator");
  }
  if (x->dims.size() != 2 || experts->dims.size() != 2 || x->dims[0] != experts->dims[0] || expert_num < 1) {
    return reject(kTiling, kRouting, ": x is ", describe(x), ", expertIdx ", describe(experts), ", of ", expert_num);
  }
  const int64_t count = experts->dims[0] * experts->dims[1];
  ATB_SIM_TRY(check_is(kRouting, "expandedX", rows, x->dtype, {count, x->dims[1]}));
  ATB_SIM_TRY(check_is(kRouting, "expandedRowIdx", places, ACL_INT32, {count}));
  ATB_SIM_TRY(check_is(kRouting, "expertTokensCountOrCumsum", ends, ACL_INT32, {expert_num}));
  return planned({kRouting,
                  {*x, *experts, *rows, *places, *ends},
                  tiled_workspace(describe(ACL_FLOAT, {count, x->dims[1]})),
                  &route},
                 workspace, executor);
}

aclnnStatus aclnnMoeInitRoutingV2(void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
  return execute(kRouting, workspace, bytes, executor, stream);
}

aclnnStatus aclnnMoeTokenUnpermuteGetWorkspaceSize(const aclTensor* rows, const aclTensor* places,
                                                   const aclTensor* probs, bool padded, const void* restore_shape,
                                                   aclTensor* out, uint64_t* workspace, aclOpExecutor** executor) {
  ATB_SIM_CALL("aclnnMoeTokenUnpermuteGetWorkspaceSize");
  ATB_SIM_TRY(check_common(kUnpermute, {rows, places, probs, out}));
  if (!is_float(*rows) || !is_float(*probs) || padded || restore_shape != nullptr) {
    return reject(kInvalid, kUnpermute, ": permutedTokens is ", describe(rows), ", probs ", describe(probs),
                  ", paddedMode ", padded);
  }
  if (rows->dims.size() != 2 || probs->dims.size() != 2 || probs->dims[1] > kMostChosen) {
    return reject(kTiling, kUnpermute, ": permutedTokens is ", describe(rows), ", probs ", describe(probs));
  }
  const int64_t count = probs->dims[0] * probs->dims[1];
  ATB_SIM_TRY(check_is(kUnpermute, "permutedTokens", rows, rows->dtype, {count, rows->dims[1]}));
  ATB_SIM_TRY(check_is(kUnpermute, "sortedIndices", places, ACL_INT32, {count}));
  ATB_SIM_TRY(check_is(kUnpermute, "out", out, rows->dtype, {probs->dims[0], rows->dims[1]}));
  return planned(
      {kUnpermute, {*rows, *places, *probs, *out}, tiled_workspace(describe(out->dtype, out->dims)), &combine},
      workspace, executor);
}

aclnnStatus aclnnMoeTokenUnpermute(void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
  return execute(kUnpermute, workspace, bytes, executor, stream);
}

}  // extern "C"

namespace atb::sim {

void* moe_symbol(std::string_view name) {
  static const std::pair<std::string_view, void*> kFunctions[] = {
      {"aclnnMoeGatingTopKSoftmaxV2GetWorkspaceSize",
       reinterpret_cast<void*>(&aclnnMoeGatingTopKSoftmaxV2GetWorkspaceSize)},
      {kGating, reinterpret_cast<void*>(&aclnnMoeGatingTopKSoftmaxV2)},
      {"aclnnMoeInitRoutingV2GetWorkspaceSize", reinterpret_cast<void*>(&aclnnMoeInitRoutingV2GetWorkspaceSize)},
      {kRouting, reinterpret_cast<void*>(&aclnnMoeInitRoutingV2)},
      {"aclnnMoeTokenUnpermuteGetWorkspaceSize", reinterpret_cast<void*>(&aclnnMoeTokenUnpermuteGetWorkspaceSize)},
      {kUnpermute, reinterpret_cast<void*>(&aclnnMoeTokenUnpermute)},
  };
  for (const auto& [known, function] : kFunctions) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace atb::sim
