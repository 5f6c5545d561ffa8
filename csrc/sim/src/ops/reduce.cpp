// SPDX-License-Identifier: Apache-2.0
// Softmax, Sort and Reduce.
#include <atb/atb_infer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

// Axes first .. first + count as the middle of [outer, middle, inner].
struct Cut {
  int64_t outer = 1, middle = 1, inner = 1;
};

Cut cut(const Sizes& shape, int64_t first, int64_t count) {
  const auto begin = static_cast<size_t>(first), end = static_cast<size_t>(first + count);
  return {product(shape, 0, begin), product(shape, begin, end), product(shape, end, shape.size())};
}

// Axes that follow each other in ascending order; a single -1 is the last.
template <typename Axes>
Status consecutive(const std::string& op, const Axes& axes, const TensorDesc& x, int64_t& first) {
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = axis_of(axes[i], rank(x));
    if (axis < 0) return reject(ERROR_INVALID_PARAM, op, ": axis ", axes[i], " does not exist in ", text(x));
    if (i == 0) first = axis;
    if (axis != first + static_cast<int64_t>(i)) {
      return reject(ERROR_INVALID_PARAM, op, ": the axes must be consecutive and ascending, axis ", axes[i], " is not");
    }
  }
  return NO_ERROR;
}

class Softmax : public Rules {
 public:
  explicit Softmax(const infer::SoftmaxParam& param) : Rules("SoftmaxOperation", 1, 1), param_(param) {}

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&, const std::vector<const int32_t*>&,
                 Kernel& kernel) const override {
    int64_t first = 0;
    ATB_SIM_TRY(consecutive(name(), param_.axes, in[0], first));
    const Cut c = cut(sizes(in[0]), first, static_cast<int64_t>(param_.axes.size()));
    kernel = [c](const Views& x, const Views& y) {
      std::vector<float> values(static_cast<size_t>(x[0].count()));
      load(x[0].data, x[0].dtype, 0, x[0].count(), values.data());
      for (int64_t i = 0; i < c.outer * c.inner; ++i) {
        float* at = values.data() + i / c.inner * c.middle * c.inner + i % c.inner;
        float highest = -std::numeric_limits<float>::infinity(), total = 0.0f;
        for (int64_t j = 0; j < c.middle; ++j) highest = std::max(highest, at[j * c.inner]);
        for (int64_t j = 0; j < c.middle; ++j) total += at[j * c.inner] = std::exp(at[j * c.inner] - highest);
        for (int64_t j = 0; j < c.middle; ++j) at[j * c.inner] /= total;
      }
      store(values.data(), y[0].dtype, 0, y[0].count(), y[0].data);
    };
    return NO_ERROR;
  }

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    int64_t first = 0;
    out[0] = in[0];
    return consecutive(name(), param_.axes, in[0], first);
  }

 private:
  infer::SoftmaxParam param_;
};

// The largest of each row, in descending order; equal ones in the order of their places, NaN before all.
void sort_rows(const View& x, const View& values, const View& indices) {
  const int64_t width = x.dims.back(), kept = values.dims.back(), rows = x.count() / width;
  std::vector<float> row(static_cast<size_t>(width)), sorted(static_cast<size_t>(kept));
  std::vector<int32_t> order(row.size());
  auto* places = reinterpret_cast<int32_t*>(indices.data);
  for (int64_t r = 0; r < rows; ++r) {
    load(x.data, x.dtype, r * width, width, row.data());
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
      const float left = row[static_cast<size_t>(a)], right = row[static_cast<size_t>(b)];
      if (std::isnan(left) || std::isnan(right)) return std::isnan(left) && (!std::isnan(right) || a < b);
      return left > right || (left == right && a < b);
    });
    for (int64_t i = 0; i < kept; ++i) {
      const int32_t place = order[static_cast<size_t>(i)];
      sorted[static_cast<size_t>(i)] = row[static_cast<size_t>(place)];
      places[r * kept + i] = place;
    }
    store(sorted.data(), values.dtype, r * kept, kept, values.data);
  }
}

class Sort : public PlainRules {
 public:
  explicit Sort(int32_t count) : PlainRules("SortOperation", 1, 2), count_(count) {}
  uint64_t workspace(const std::vector<TensorDesc>& out) const override { return tiled_workspace(out[0]); }

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    Sizes shape = sizes(in[0]);
    if (count_ > shape.back()) {
      return refuse(ERROR_INVALID_PARAM, "asks for the ", count_, " largest of the last dimension of ", text(in[0]));
    }
    shape.back() = count_;
    out[0] = with_sizes(in[0], shape);
    out[1] = describe(ACL_INT32, shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [](const Views& in, const Views& out) { sort_rows(in[0], out[0], out[1]); };
  }

 private:
  int32_t count_;
};

using infer::ReduceParam;

class Reduce : public PlainRules {
 public:
  explicit Reduce(const ReduceParam& param) : PlainRules("ReduceOperation", 1, 1), param_(param) {}

 protected:
  std::string key() const override {
    const auto type = param_.reduceType;
    return name() + (type == ReduceParam::REDUCE_MAX ? "MAX" : type == ReduceParam::REDUCE_MIN ? "MIN" : "SUM");
  }

  // Which axes go.
  static Status reduced(const ReduceParam& param, int64_t rank, std::vector<bool>& gone) {
    gone.assign(static_cast<size_t>(rank), false);
    for (size_t i = 0; i < param.axis.size(); ++i) {
      const int64_t axis = param.axis[i];
      if (axis < 0 || axis >= rank || gone[static_cast<size_t>(axis)]) {
        return reject(ERROR_INVALID_PARAM, "ReduceOperation: axis ", param.axis[i],
                      " does not exist or is there twice; axes count from the front, and the tensor has ", rank,
                      " dimensions");
      }
      gone[static_cast<size_t>(axis)] = true;
    }
    return NO_ERROR;
  }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    std::vector<bool> gone;
    ATB_SIM_TRY(reduced(param_, rank(in[0]), gone));
    Sizes shape;
    for (size_t i = 0; i < gone.size(); ++i) {
      if (!gone[i]) shape.push_back(in[0].shape.dims[i]);
    }
    if (shape.empty()) {
      return refuse(ERROR_INVALID_PARAM, "all axes of ", text(in[0]), " would go, and a tensor has to have one");
    }
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      std::vector<bool> gone;
      (void)reduced(param, static_cast<int64_t>(in[0].dims.size()), gone);
      const bool whole = in[0].dtype == ACL_INT32;
      std::vector<double> totals(static_cast<size_t>(out[0].count()), start(param));
      for (int64_t i = 0; i < in[0].count(); ++i) {
        const double value = whole ? static_cast<double>(load_integer(in[0].data, in[0].dtype, i))
                                   : static_cast<double>(load_one(in[0].data, in[0].dtype, i));
        double& total = totals[static_cast<size_t>(place(i, in[0].dims, gone))];
        total = param.reduceType == ReduceParam::REDUCE_SUM   ? total + value
                : param.reduceType == ReduceParam::REDUCE_MAX ? std::max(total, value)
                                                              : std::min(total, value);
      }
      for (int64_t i = 0; i < out[0].count(); ++i) {
        const double total = totals[static_cast<size_t>(i)];
        const auto rounded = static_cast<float>(total);
        if (!whole) store(&rounded, out[0].dtype, i, 1, out[0].data);
        if (whole) reinterpret_cast<int32_t*>(out[0].data)[i] = static_cast<int32_t>(total);
      }
    };
  }

 private:
  static double start(const ReduceParam& param) {
    if (param.reduceType == ReduceParam::REDUCE_SUM) return 0.0;
    const double infinity = std::numeric_limits<double>::infinity();
    return param.reduceType == ReduceParam::REDUCE_MAX ? -infinity : infinity;
  }

  static int64_t place(int64_t i, const Sizes& shape, const std::vector<bool>& gone) {
    int64_t at = 0, step = 1;
    for (size_t axis = shape.size(); axis-- > 0;) {
      if (!gone[axis]) {
        at += i % shape[axis] * step;
        step *= shape[axis];
      }
      i /= shape[axis];
    }
    return at;
  }

  ReduceParam param_;
};

}  // namespace

Status make_rules(const infer::SoftmaxParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("SoftmaxOperation", param.rsv));
  if (param.axes.size() == 0) return reject(ERROR_INVALID_PARAM, "SoftmaxOperation: no axes");
  for (int64_t axis : param.axes) {
    if (axis >= 0 || (axis == -1 && param.axes.size() == 1)) continue;
    return reject(ERROR_INVALID_PARAM, "SoftmaxOperation: axis ", axis, ": axes count from the front, or are -1 alone");
  }
  rules = std::make_unique<Softmax>(param);
  return NO_ERROR;
}

Status make_rules(const infer::SortParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("SortOperation", param.rsv));
  if (param.num.size() != 1 || param.num[0] <= 0) {
    return reject(ERROR_INVALID_PARAM, "SortOperation: num holds one positive number, not ", param.num.size());
  }
  rules = std::make_unique<Sort>(param.num[0]);
  return NO_ERROR;
}

Status make_rules(const ReduceParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("ReduceOperation", param.rsv));
  const int type = param.reduceType;
  if (type < ReduceParam::REDUCE_MAX || type > ReduceParam::REDUCE_SUM || param.axis.size() == 0) {
    return reject(ERROR_INVALID_PARAM, "ReduceOperation: reduceType ", type, " with ", param.axis.size(),
                  " axes: it is MAX, MIN or SUM over at least one axis");
  }
  rules = std::make_unique<Reduce>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
