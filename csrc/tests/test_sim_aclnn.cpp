// SPDX-License-Identifier: Apache-2.0
// The simulated calls of aclnn: two phases, what they compute and what they refuse.
#include <cstdint>
#include <deque>
#include <initializer_list>

#include "sim/opapi.h"
#include "sim_card.h"

using namespace atb_core::test;

struct aclTensor;
struct aclTensorList;
struct aclOpExecutor;

namespace {

using Ints = std::vector<int64_t>;
using Bytes = std::vector<uint8_t>;
using Halves = std::vector<uint16_t>;

constexpr uint16_t kOne = 0x3C00, kTwo = 0x4000, kThree = 0x4200;  // float16
constexpr int kNull = 161001, kInvalid = 161002, kTiling = 561002, kUnsupported = 361001;

template <typename Function>
Function call(const char* name) {
  return reinterpret_cast<Function>(sim::opapi_symbol(name));
}

// Tensors of one call, which are destroyed behind it.
class Tensors {
 public:
  explicit Tensors(Card& card) : card_(card) {}
  ~Tensors() {
    for (const aclTensor* tensor : made_) CHECK(call<int (*)(const aclTensor*)>("aclDestroyTensor")(tensor) == 0);
    for (const aclTensorList* list : lists_) {
      CHECK(call<int (*)(const aclTensorList*)>("aclDestroyTensorList")(list) == 0);
    }
  }
  Tensors(const Tensors&) = delete;
  Tensors& operator=(const Tensors&) = delete;

  // A tensor in rows, or a matrix [n, k] seen as [k, n].
  template <typename T>
  aclTensor* add(aclDataType dtype, Ints shape, const std::vector<T>& values, bool turned = false) {
    aclTensor* tensor = create(dtype, std::move(shape), values, turned);
    made_.push_back(tensor);
    return tensor;
  }
  template <typename T>
  aclTensorList* list(aclDataType dtype, Ints shape, const std::vector<T>& values, bool turned = false) {
    const aclTensor* tensor = create(dtype, std::move(shape), values, turned);
    lists_.push_back(call<aclTensorList* (*)(const aclTensor* const*, uint64_t)>("aclCreateTensorList")(&tensor, 1));
    return lists_.back();
  }
  void* last() const { return last_; }

 private:
  template <typename T>
  aclTensor* create(aclDataType dtype, Ints shape, const std::vector<T>& values, bool turned) {
    const size_t bytes = values.size() * sizeof(T);
    last_ = card_.allocate(bytes);
    CHECK(aclrtMemcpy(last_, bytes, values.data(), bytes, ACL_MEMCPY_HOST_TO_DEVICE) == 0);
    Ints strides(shape.size(), 1), view = shape;
    for (size_t axis = shape.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * shape[axis + 1];
    if (turned) {
      std::swap(view[view.size() - 2], view.back());
      std::swap(strides[strides.size() - 2], strides.back());
    }
    using Create = aclTensor* (*)(const int64_t*, uint64_t, aclDataType, const int64_t*, int64_t, aclFormat,
                                  const int64_t*, uint64_t, void*);
    return call<Create>("aclCreateTensor")(view.data(), view.size(), dtype, strides.data(), 0, ACL_FORMAT_ND,
                                           shape.data(), shape.size(), last_);
  }

  Card& card_;
  std::vector<const aclTensor*> made_;
  std::vector<aclTensorList*> lists_;
  void* last_ = nullptr;
};

template <typename T>
std::vector<T> read(const void* data, size_t count) {
  std::vector<T> values(count);
  CHECK(aclrtMemcpy(values.data(), count * sizeof(T), data, count * sizeof(T), ACL_MEMCPY_DEVICE_TO_HOST) == 0);
  return values;
}

using Run = int (*)(void*, uint64_t, aclOpExecutor*, aclrtStream);

// Runs the second phase with a workspace and waits.
int finish(Card& card, const char* name, uint64_t workspace, aclOpExecutor* executor) {
  const int status = call<Run>(name)(card.allocate(workspace), workspace, executor, card.stream);
  return status == 0 ? card.wait() : status;
}

using Product = int (*)(const aclTensor*, const aclTensor*, const aclTensor*, const aclTensor*, const aclTensor*,
                        const aclTensor*, const aclTensor*, int, const aclTensor*, uint64_t*, aclOpExecutor**);
constexpr const char* kProduct = "aclnnWeightQuantBatchMatmulV2";

// The first phase of a product; the executor of one that is refused stays null.
struct Planned {
  uint64_t workspace = 0;
  aclOpExecutor* executor = nullptr;
  int status = 0;
};
Planned product(const aclTensor* x, const aclTensor* weight, const aclTensor* scale, const aclTensor* offset,
                const aclTensor* bias, int group, const aclTensor* y) {
  Planned made;
  made.status = call<Product>("aclnnWeightQuantBatchMatmulV2GetWorkspaceSize")(
      x, weight, scale, offset, nullptr, nullptr, bias, group, y, &made.workspace, &made.executor);
  return made;
}

}  // namespace

TEST(rows_of_integers_are_multiplied_by_their_scales) {
  Card card;
  Tensors t(card);
  aclTensor* x = t.add(ACL_FLOAT16, {1, 2}, Halves{kOne, kTwo});
  // [n, k] = [[1, 2], [-1, 3]] times 1 and 2: 5 and 10.
  aclTensor* weight = t.add(ACL_INT8, {2, 2}, Bytes{1, 2, 0xFF, 3}, true);
  aclTensor* scale = t.add(ACL_FLOAT16, {2}, Halves{kOne, kTwo});
  aclTensor* bias = t.add(ACL_FLOAT16, {2}, Halves{kOne, 0});
  aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
  const Planned made = product(x, weight, scale, nullptr, bias, 0, y);
  CHECK(made.status == 0 && made.workspace > 0);
  CHECK(finish(card, kProduct, made.workspace, made.executor) == 0);
  CHECK(read<uint16_t>(t.last(), 2) == Halves({0x4600, 0x4900}));  // 6, 10
}

TEST(pairs_of_four_bits_have_scales_and_offsets_of_their_group) {
  Card card;
  Tensors t(card);
  aclTensor* x = t.add(ACL_FLOAT16, {1, 64}, Halves(64, kOne));
  // [k, n] = [64, 2]: the first column is 1, the second -1.
  aclTensor* weight = t.add(ACL_INT4, {64, 2}, Bytes(64, 0xF1));
  aclTensor* scale = t.add(ACL_FLOAT16, {2, 2}, Halves{kOne, kOne, kTwo, kOne});
  aclTensor* offset = t.add(ACL_FLOAT16, {2, 2}, Halves{0, kTwo, 0, kThree});
  aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
  const Planned made = product(x, weight, scale, offset, nullptr, 32, y);
  CHECK(made.status == 0);
  CHECK(finish(card, kProduct, made.workspace, made.executor) == 0);
  CHECK(read<uint16_t>(t.last(), 2) == Halves({0x5600, 0x5600}));  // 32 + 64, and 32 + 64
}

TEST(a_product_that_is_not_documented_is_refused) {
  Card card;
  Tensors t(card);
  aclTensor* x = t.add(ACL_FLOAT16, {1, 64}, Halves(64));
  aclTensor* weight = t.add(ACL_INT8, {64, 2}, Bytes(128));
  aclTensor* scale = t.add(ACL_FLOAT16, {2}, Halves(2));
  aclTensor* scales = t.add(ACL_FLOAT16, {2, 2}, Halves(4));
  aclTensor* floats = t.add(ACL_FLOAT, {2}, std::vector<float>(2));
  aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
  const auto status = [&](auto... given) { return product(given...).status; };
  CHECK(status(x, weight, scale, nullptr, nullptr, 0, static_cast<aclTensor*>(nullptr)) == kNull);
  CHECK(status(x, weight, floats, nullptr, nullptr, 0, y) == kInvalid && says("antiquantScale is float32"));
  CHECK(status(x, weight, scale, nullptr, floats, 0, y) == kInvalid && says("beside float16 a bias is float16"));
  CHECK(status(x, scales, scale, nullptr, nullptr, 0, y) == kInvalid && says("not int8 or int4"));
  for (int group : {16, 48, 64, -32}) CHECK(status(x, weight, scales, nullptr, nullptr, group, y) == kInvalid);
  CHECK(says("no multiple of 32 from 32 to k - 1 = 63"));
  CHECK(status(x, weight, scale, nullptr, nullptr, 32, y) == kInvalid && says("not [2, 2]"));
  CHECK(status(x, weight, scales, scale, nullptr, 32, y) == kInvalid && says("antiquantOffset differs"));
  CHECK(status(x, weight, scale, nullptr, nullptr, 0, x) == kInvalid && says("not [m, n]"));
  CHECK(status(y, weight, scale, nullptr, nullptr, 0, y) == kInvalid && says("differ in k"));
  sim::set_soc("Ascend910A");
  CHECK(status(x, weight, scale, nullptr, nullptr, 0, y) == kUnsupported && says("on 910B and 310P"));
  sim::set_soc("Ascend910B2");
}

TEST(a_310p_multiplies_by_rows_of_eight_bits_alone) {
  Card card;
  Tensors t(card);
  aclTensor* x = t.add(ACL_FLOAT16, {1, 64}, Halves(64, kOne));
  aclTensor* weight = t.add(ACL_INT8, {2, 64}, Bytes(128, 2), true);
  aclTensor* pairs = t.add(ACL_INT4, {2, 64}, Bytes(64), true);
  aclTensor* scale = t.add(ACL_FLOAT16, {2}, Halves{kOne, kTwo});
  aclTensor* column = t.add(ACL_FLOAT16, {2, 1}, Halves{kOne, kTwo});
  aclTensor* row = t.add(ACL_FLOAT16, {1, 2}, Halves{kOne, kTwo});
  aclTensor* scales = t.add(ACL_FLOAT16, {2, 2}, Halves(4));
  aclTensor* brain = t.add(ACL_BF16, {1, 64}, Halves(64));
  aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
  sim::set_soc("Ascend310P3");
  for (aclTensor* taken : {scale, column}) {
    const Planned made = product(x, weight, taken, nullptr, nullptr, 0, y);
    CHECK(made.status == 0 && finish(card, kProduct, made.workspace, made.executor) == 0);
    CHECK(read<uint16_t>(t.last(), 2) == Halves({0x5800, 0x5C00}));  // 128, 256
  }
  const auto status = [&](auto... given) { return product(given...).status; };
  CHECK(status(x, weight, row, nullptr, nullptr, 0, y) == kInvalid && says("not [2, 1]"));
  CHECK(status(x, weight, scales, nullptr, nullptr, 32, y) == kInvalid && says("there are no groups"));
  CHECK(status(x, pairs, scale, nullptr, nullptr, 0, y) == kInvalid && says("the weight int8"));
  CHECK(status(brain, weight, scale, nullptr, nullptr, 0, y) == kInvalid && says("on a 310P x is float16"));
  sim::set_soc("Ascend910B2");
  CHECK(status(x, weight, column, nullptr, nullptr, 0, y) == kInvalid && says("not [1, 2]"));
  CHECK(status(x, weight, row, nullptr, nullptr, 0, y) == 0);
}

TEST(an_executor_runs_once_for_its_own_call_with_enough_memory) {
  const uint64_t before = sim::counters().live_aclnn;
  Card card;
  {
    Tensors t(card);
    aclTensor* x = t.add(ACL_FLOAT16, {1, 2}, Halves{kOne, kOne});
    aclTensor* weight = t.add(ACL_INT8, {2, 2}, Bytes(4), true);
    aclTensor* scale = t.add(ACL_FLOAT16, {2}, Halves{kOne, kOne});
    aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
    const auto plan = [&] { return product(x, weight, scale, nullptr, nullptr, 0, y); };
    Planned made = plan();
    CHECK(finish(card, kProduct, made.workspace, made.executor) == 0);
    CHECK(finish(card, kProduct, made.workspace, made.executor) == kNull && says("or it has run already"));
    made = plan();
    CHECK(finish(card, "aclnnGroupedMatmulV4", made.workspace, made.executor) == kInvalid && says("was made for"));
    made = plan();
    CHECK(call<Run>(kProduct)(nullptr, made.workspace, made.executor, card.stream) == kInvalid && says("workspace"));
    made = plan();
    CHECK(call<Run>(kProduct)(card.allocate(1), 1, made.executor, card.stream) == kInvalid && says("are needed"));
    made = plan();
    CHECK(finish(card, kProduct, made.workspace, nullptr) == kNull);
    // One that is repeatable runs again, and belongs to the caller.
    const auto repeat = call<int (*)(aclOpExecutor*)>("aclSetAclOpExecutorRepeatable");
    const auto destroy = call<int (*)(aclOpExecutor*)>("aclDestroyAclOpExecutor");
    CHECK(destroy(made.executor) == kInvalid && repeat(made.executor) == 0);
    CHECK(finish(card, kProduct, made.workspace, made.executor) == 0);
    CHECK(finish(card, kProduct, made.workspace, made.executor) == 0);
    CHECK(destroy(made.executor) == 0 && destroy(made.executor) == kInvalid);
  }
  CHECK(sim::counters().live_aclnn == before);
}

TEST(memory_that_is_gone_and_faults_of_kernels_are_reported) {
  Card card;
  Tensors t(card);
  aclTensor* x = t.add(ACL_FLOAT16, {1, 2}, Halves{kOne, kOne});
  aclTensor* weight = t.add(ACL_INT8, {2, 2}, Bytes(4), true);
  aclTensor* scale = t.add(ACL_FLOAT16, {2}, Halves{kOne, kOne});
  aclTensor* y = t.add(ACL_FLOAT16, {1, 2}, Halves(2));
  Planned made = product(x, weight, scale, nullptr, nullptr, 0, y);
  sim::inject_async(0, ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(finish(card, kProduct, made.workspace, made.executor) == ACL_ERROR_RT_AICORE_EXCEPTION);
  made = product(x, weight, scale, nullptr, nullptr, 0, y);
  void* workspace = card.allocate(made.workspace);
  std::swap(card.memory[card.memory.size() - 1], card.memory[3]);  // the result's memory is the last now
  card.free_last();
  CHECK(call<Run>(kProduct)(workspace, made.workspace, made.executor, card.stream) == kInvalid &&
        says("no valid address"));
}

TEST(experts_are_chosen_and_their_rows_grouped_multiplied_and_summed) {
  Card card;
  Tensors t(card);
  Planned made;
  using Gating = int (*)(const aclTensor*, const aclTensor*, int64_t, int64_t, bool, const aclTensor*, const aclTensor*,
                         const aclTensor*, uint64_t*, aclOpExecutor**);
  aclTensor* logits = t.add(ACL_FLOAT, {2, 3}, std::vector<float>{0, 0, -100, -100, 0, 0});
  aclTensor* weights = t.add(ACL_FLOAT, {2, 2}, std::vector<float>(4));
  void* weights_data = t.last();
  aclTensor* chosen = t.add(ACL_INT32, {2, 2}, std::vector<int32_t>(4));
  void* chosen_data = t.last();
  const auto gating = call<Gating>("aclnnMoeGatingTopKSoftmaxV2GetWorkspaceSize");
  CHECK(gating(logits, nullptr, 2, 1, false, weights, chosen, nullptr, &made.workspace, &made.executor) == 0);
  CHECK(finish(card, "aclnnMoeGatingTopKSoftmaxV2", made.workspace, made.executor) == 0);
  CHECK(read<float>(weights_data, 4) == std::vector<float>(4, 0.5f));
  CHECK(read<int32_t>(chosen_data, 4) == std::vector<int32_t>({0, 1, 1, 2}));
  CHECK(gating(logits, nullptr, 4, 1, false, weights, chosen, nullptr, &made.workspace, &made.executor) == kTiling);
  CHECK(gating(logits, nullptr, 2, 2, false, weights, chosen, nullptr, &made.workspace, &made.executor) == kTiling);
  CHECK(gating(chosen, nullptr, 2, 1, false, weights, chosen, nullptr, &made.workspace, &made.executor) == kInvalid);
  CHECK(gating(logits, logits, 2, 1, false, weights, chosen, nullptr, &made.workspace, &made.executor) == kInvalid);

  using Routing =
      int (*)(const aclTensor*, const aclTensor*, int64_t, int64_t, int64_t, int64_t, int64_t, bool, const aclTensor*,
              const aclTensor*, const aclTensor*, const aclTensor*, uint64_t*, aclOpExecutor**);
  aclTensor* x = t.add(ACL_FLOAT, {2, 1}, std::vector<float>{1, 2});
  aclTensor* rows = t.add(ACL_FLOAT, {4, 1}, std::vector<float>(4));
  void* rows_data = t.last();
  aclTensor* places = t.add(ACL_INT32, {4}, std::vector<int32_t>(4));
  void* places_data = t.last();
  aclTensor* ends = t.add(ACL_INT32, {3}, std::vector<int32_t>(3));
  void* ends_data = t.last();
  const auto routing = call<Routing>("aclnnMoeInitRoutingV2GetWorkspaceSize");
  const auto routed = [&](const aclTensor* of, int64_t drop, const aclTensor* to) {
    return routing(of, chosen, 0, 0, 3, drop, 1, false, to, places, ends, nullptr, &made.workspace, &made.executor);
  };
  CHECK(routed(x, 0, rows) == 0);
  CHECK(finish(card, "aclnnMoeInitRoutingV2", made.workspace, made.executor) == 0);
  CHECK(read<float>(rows_data, 4) == std::vector<float>({1, 1, 2, 2}));
  CHECK(read<int32_t>(places_data, 4) == std::vector<int32_t>({0, 1, 2, 3}));
  CHECK(read<int32_t>(ends_data, 3) == std::vector<int32_t>({1, 3, 4}));
  CHECK(routed(x, 1, rows) == kInvalid && routed(x, 0, x) == kTiling && routed(ends, 0, rows) == kInvalid);

  using Combine = int (*)(const aclTensor*, const aclTensor*, const aclTensor*, bool, const void*, aclTensor*,
                          uint64_t*, aclOpExecutor**);
  const auto combine = call<Combine>("aclnnMoeTokenUnpermuteGetWorkspaceSize");
  aclTensor* sum = t.add(ACL_FLOAT, {2, 1}, std::vector<float>(2));
  CHECK(combine(rows, places, weights, false, nullptr, sum, &made.workspace, &made.executor) == 0);
  CHECK(finish(card, "aclnnMoeTokenUnpermute", made.workspace, made.executor) == 0);
  CHECK(read<float>(t.last(), 2) == std::vector<float>({1, 2}));
  CHECK(combine(rows, places, weights, true, nullptr, sum, &made.workspace, &made.executor) == kInvalid);
  CHECK(combine(rows, places, sum, false, nullptr, sum, &made.workspace, &made.executor) == kTiling);
  sim::set_soc("Ascend310P3");
  CHECK(combine(rows, places, weights, false, nullptr, sum, &made.workspace, &made.executor) == kUnsupported);
  sim::set_soc("Ascend910B2");
}

TEST(groups_of_rows_have_matrices_of_their_own) {
  using List = const aclTensorList*;
  using Grouped =
      int (*)(List, List, List, List, List, List, List, List, const aclTensor*, List, List, List, int64_t, int64_t,
              int64_t, int64_t, aclTensorList*, aclTensorList*, aclTensorList*, uint64_t*, aclOpExecutor**);
  Card card;
  Tensors t(card);
  Planned made;
  const auto plan = [&](List x, List weight, List bias, const aclTensor* groups, int64_t split, aclTensorList* y) {
    made.status = call<Grouped>("aclnnGroupedMatmulV4GetWorkspaceSize")(
        x, weight, bias, nullptr, nullptr, nullptr, nullptr, nullptr, groups, nullptr, nullptr, nullptr, split, 0, 0, 0,
        y, nullptr, nullptr, &made.workspace, &made.executor);
    return made.status;
  };
  const auto run = [&] { return finish(card, "aclnnGroupedMatmulV4", made.workspace, made.executor); };
  List x = t.list(ACL_FLOAT, {3, 2}, std::vector<float>{1, 1, 1, 2, 3, 0});
  // Groups of 1, 0 and 2 rows; matrices [n = 1, k = 2], transposed.
  List weight = t.list(ACL_FLOAT, {3, 1, 2}, std::vector<float>{1, 2, 9, 9, 3, 4}, true);
  List bias = t.list(ACL_FLOAT, {3, 1}, std::vector<float>{0, 0, 1});
  aclTensor* groups = t.add(ACL_INT64, {3}, Ints{1, 1, 3});
  aclTensorList* y = t.list(ACL_FLOAT, {3, 1}, std::vector<float>(3));
  void* result = t.last();
  CHECK(plan(x, weight, bias, groups, 3, y) == 0 && run() == 0);
  CHECK(read<float>(result, 3) == std::vector<float>({3, 12, 10}));
  aclTensor* falling = t.add(ACL_INT64, {3}, Ints{2, 1, 3});
  CHECK(plan(x, weight, nullptr, falling, 3, y) == 0 && run() != 0 && says("groupList decreases"));
  aclTensor* early = t.add(ACL_INT64, {3}, Ints{1, 1, 2});
  CHECK(plan(x, weight, nullptr, early, 3, y) == 0 && run() != 0 && says("does not end with the rows of x"));
  CHECK(plan(x, weight, nullptr, nullptr, 3, y) == kNull);
  CHECK(plan(x, weight, nullptr, groups, 0, y) == kInvalid && says("splitItem 0"));
  CHECK(plan(x, x, nullptr, groups, 3, y) == kInvalid && says("dimensions, not 2, 3, 2 and 1"));
  CHECK(plan(x, weight, weight, groups, 3, y) == kInvalid && says("the bias is"));
  List halves = t.list(ACL_FLOAT16, {3, 1, 2}, Halves(6), true);
  CHECK(plan(x, halves, nullptr, groups, 3, y) == kInvalid && says("differ in type"));
  aclTensor* shorter = t.add(ACL_INT64, {2}, Ints{1, 3});
  CHECK(plan(x, weight, nullptr, shorter, 3, y) == kInvalid && says("does not go with groupList"));
  sim::set_soc("Ascend310P3");
  CHECK(plan(x, weight, nullptr, groups, 3, y) == kUnsupported);
  sim::set_soc("Ascend910B2");
}

TEST_MAIN()
