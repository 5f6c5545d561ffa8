// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace atb_core {

// A size: an integer expression over numbered dimensions, in postfix order.
class DimExpr {
 public:
  enum class Op : int64_t { constant, dim, add, mul, floor_div };
  struct Step {
    Op op;
    int64_t value;  // the constant, or the number of the dimension
  };

  DimExpr() : DimExpr(int64_t{0}) {}
  explicit DimExpr(int64_t constant) : steps_{{Op::constant, constant}} {}
  // Throws Error unless the steps are a well formed expression over the dimensions 0..num_dims-1.
  DimExpr(std::vector<Step> steps, int num_dims);

  // The dimension when the expression is nothing else, -1 otherwise.
  int single_dim() const {
    return steps_.size() == 1 && steps_[0].op == Op::dim ? static_cast<int>(steps_[0].value) : -1;
  }
  // The dimensions that occur, ascending.
  std::vector<int> dims() const;

  // Equal for equal expressions.
  std::string key() const;

  // The value for these sizes of the dimensions. Throws Error on overflow or division by zero.
  int64_t evaluate(std::span<const int64_t> sizes) const;

  // The size of dimension `dim` for which the expression has `value`, the others being as in `sizes`. The
  // expression has to be linear in it. Nothing when there is no such non-negative size.
  std::optional<int64_t> solve(int dim, int64_t value, std::span<const int64_t> sizes) const;

 private:
  std::vector<Step> steps_;
};

using SymbolicShape = std::vector<DimExpr>;

// Fills in the sizes (-1: not yet known) from the real shape of a tensor, and checks it against the
// declaration. False when some size could not be checked, because two of its dimensions are not known yet: call
// again when another tensor has told one. Throws Error naming the tensor on a conflict.
bool match_shape(const std::string& tensor, const SymbolicShape& declared, std::span<const int64_t> real,
                 std::span<const std::string> names, std::vector<int64_t>& sizes);

// "[2, 64]"
std::string shape_text(std::span<const int64_t> shape);

}  // namespace atb_core
