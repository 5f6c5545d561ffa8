// SPDX-License-Identifier: Apache-2.0
#include "graph/dims.h"

#include <algorithm>

#include "atb_core/error.h"

namespace atb_core {
namespace {

void require_fits(bool overflowed) {
  if (overflowed) fail("a tensor size does not fit into 64 bits");
}

int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) fail("a tensor size is divided by zero");
  require_fits(a == INT64_MIN && b == -1);
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

int64_t apply(DimExpr::Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  if (op == DimExpr::Op::floor_div) return floor_div(a, b);
  require_fits(op == DimExpr::Op::add ? __builtin_add_overflow(a, b, &result) : __builtin_mul_overflow(a, b, &result));
  return result;
}

bool match_size(const std::string& tensor, const DimExpr& expr, size_t axis, std::span<const int64_t> real,
                std::span<const std::string> names, std::vector<int64_t>& sizes) {
  std::vector<int> open;
  const std::vector<int> dims = expr.dims();
  for (int dim : dims) {
    if (sizes[static_cast<size_t>(dim)] < 0) open.push_back(dim);
  }
  if (open.size() > 1) return false;
  if (open.size() == 1) {
    const size_t dim = static_cast<size_t>(open[0]);
    const std::optional<int64_t> size = expr.solve(open[0], real[axis], sizes);
    if (!size) {
      fail("'", tensor, "' has shape ", shape_text(real), ": no size of dimension '", names[dim],
           "' makes its dimension ", axis, " equal to ", real[axis]);
    }
    sizes[dim] = *size;
    return true;
  }
  const int64_t expected = expr.evaluate(sizes);
  if (expected == real[axis]) return true;
  std::string because;
  for (int dim : dims) {
    const size_t index = static_cast<size_t>(dim);
    because += (because.empty() ? " (" : ", ") + names[index] + " = " + std::to_string(sizes[index]);
  }
  fail("'", tensor, "' has shape ", shape_text(real), ": its dimension ", axis, " must be ", expected,
       because.empty() ? "" : because + ")", ", not ", real[axis]);
}

}  // namespace

DimExpr::DimExpr(std::vector<Step> steps, int num_dims) : steps_(std::move(steps)) {
  int64_t depth = 0;
  for (const Step& step : steps_) {
    switch (step.op) {
      case Op::dim:
        if (step.value < 0 || step.value >= num_dims) fail("a size refers to unknown dimension ", step.value);
        [[fallthrough]];
      case Op::constant:
        ++depth;
        break;
      case Op::add:
      case Op::mul:
      case Op::floor_div:
        if (depth < 2) fail("a size is a malformed expression");
        --depth;
        break;
      default:
        fail("a size has an unknown operation ", static_cast<int64_t>(step.op));
    }
  }
  if (depth != 1) fail("a size is a malformed expression");
}

std::vector<int> DimExpr::dims() const {
  std::vector<int> found;
  for (const Step& step : steps_) {
    if (step.op == Op::dim) found.push_back(static_cast<int>(step.value));
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::string DimExpr::key() const {
  std::string text;
  for (const Step& step : steps_) text += "cd+*/"[static_cast<size_t>(step.op)] + std::to_string(step.value) + ' ';
  return text;
}

int64_t DimExpr::evaluate(std::span<const int64_t> sizes) const {
  if (steps_.size() == 1) {
    return steps_[0].op == Op::constant ? steps_[0].value : sizes[static_cast<size_t>(steps_[0].value)];
  }
  std::vector<int64_t> stack;
  for (const Step& step : steps_) {
    if (step.op == Op::constant) {
      stack.push_back(step.value);
    } else if (step.op == Op::dim) {
      stack.push_back(sizes[static_cast<size_t>(step.value)]);
    } else {
      const int64_t right = stack.back();
      stack.pop_back();
      stack.back() = apply(step.op, stack.back(), right);
    }
  }
  return stack.back();
}

std::optional<int64_t> DimExpr::solve(int dim, int64_t value, std::span<const int64_t> sizes) const {
  std::vector<int64_t> trial(sizes.begin(), sizes.end());
  const auto at = [&](int64_t size) {
    trial[static_cast<size_t>(dim)] = size;
    return evaluate(trial);
  };
  const int64_t base = at(0);
  const int64_t slope = at(1) - base;
  if (slope == 0 || (value - base) % slope != 0) return std::nullopt;
  const int64_t size = (value - base) / slope;
  if (size < 0 || at(size) != value) return std::nullopt;
  return size;
}

bool match_shape(const std::string& tensor, const SymbolicShape& declared, std::span<const int64_t> real,
                 std::span<const std::string> names, std::vector<int64_t>& sizes) {
  if (declared.size() != real.size()) {
    fail("'", tensor, "' must have ", declared.size(), " dimensions, but its shape is ", shape_text(real));
  }
  bool complete = true;
  for (size_t axis = 0; axis < real.size(); ++axis) {
    // The fast case: nearly all sizes are a single dimension, and this runs for every tensor of every step.
    if (const int dim = declared[axis].single_dim(); dim >= 0 && sizes[static_cast<size_t>(dim)] < 0) {
      sizes[static_cast<size_t>(dim)] = real[axis];
    } else if (dim >= 0 && sizes[static_cast<size_t>(dim)] == real[axis]) {
      continue;
    } else {
      complete = match_size(tensor, declared[axis], axis, real, names, sizes) && complete;
    }
  }
  return complete;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace atb_core
