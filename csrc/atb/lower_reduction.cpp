// SPDX-License-Identifier: Apache-2.0
// Softmax, Sort and Reduce.
#include <algorithm>
#include <set>

#include "atb/lower_rules.h"

namespace atb_core::ascend {

using ::atb::infer::ReduceParam;

void lower_softmax(Lowering& l) {
  require_result_type(l);
  ::atb::infer::SoftmaxParam param{};
  const std::vector<int64_t>& axes = l.list("axes");
  l.require(!axes.empty(), "axes names no dimension");
  const int first = axis_of(l, axes[0], l.rank(0));
  for (size_t i = 0; i < axes.size(); ++i) {
    const int axis = axis_of(l, axes[i], l.rank(0));
    l.require(axis == first + static_cast<int>(i), "axes are not consecutive");
    param.axes.push_back(axis);
  }
  l.add("Softmax", param, {l.in(0)}, {l.out(0)});
}

void lower_sort(Lowering& l) {
  const std::vector<int64_t>& num = l.list("num");
  l.require(num.size() == 1 && num[0] > 0 && num[0] <= INT32_MAX, "num must hold one positive count");
  const auto width = l.size(0, l.rank(0) - 1);
  l.require(!width || num[0] <= *width, "num is ", num[0], " of only ", width.value_or(0), " elements");
  l.require(l.input(0).dtype != DataType::f32 || !l.device().nz,
            "Sort takes no float32 there: cast x to float16 first");
  require_result_type(l, 0);
  l.require(l.output(1).dtype == DataType::i32, "the indices are ", name(l.output(1).dtype), ", but ATB gives int32");
  ::atb::infer::SortParam param{};
  param.num.push_back(static_cast<int32_t>(num[0]));
  l.add("Sort", param, {l.in(0)}, {l.out(0), l.out(1)});
}

void lower_reduce(Lowering& l) {
  const std::string& kind = l.text("reduce_type");
  const DataType type = l.input(0).dtype;
  const bool sum = kind == "REDUCE_SUM";
  l.require(sum || kind == "REDUCE_MAX" || kind == "REDUCE_MIN", "reduce_type ", kind, " is unknown");
  require_result_type(l);
  if (sum) {
    l.require(type != DataType::i32, "ATB's REDUCE_SUM takes float16 or bfloat16, not int32");
  } else {
    l.require(type != DataType::f16, "ATB's ", kind,
              " takes bfloat16 or int32, not float16: run the model in "
              "bfloat16, or take the largest of the last dimension with Sort, num [1]");
  }
  std::set<int> axes;
  for (int64_t axis : l.list("axis")) axes.insert(axis_of(l, axis, l.rank(0)));
  l.require(!axes.empty(), "axis names no dimension");
  l.require(static_cast<int>(axes.size()) < l.rank(0),
            "no dimension would be left, and ATB has no tensors without one: ", "reshape x to [1, ...] first");
  ReduceParam param{};
  param.reduceType =
      sum ? ReduceParam::REDUCE_SUM : (kind == "REDUCE_MAX" ? ReduceParam::REDUCE_MAX : ReduceParam::REDUCE_MIN);
  for (int axis : axes) param.axis.push_back(axis);
  l.add("Reduce", param, {l.in(0)}, {l.out(0)});
}

}  // namespace atb_core::ascend
