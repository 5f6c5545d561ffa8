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

  // Returns the dimension if the expression is a single dimension, -1 otherwise.
  int single_dim() const {
    return steps_.size() == 1 && steps_[0].op == Op::dim ? static_cast<int>(steps_[0].value) : -1;
  }
  // Returns the dimensions that occur, ascending.
  std::vector<int> dims() const;

  // Compares expressions step by step.
  std::string key() const;

  // Returns the value for these sizes of the dimensions. Throws Error on overflow or division by zero.
  int64_t evaluate(std::span<const int64_t> sizes) const;

  // Returns the size of dimension `dim` for which the expression has `value`, the others being as in `sizes`; nothing
  // if no non-negative size does. The expression has to be linear in `dim`.
  std::optional<int64_t> solve(int dim, int64_t value, std::span<const int64_t> sizes) const;

 private:
  std::vector<Step> steps_;
};

using SymbolicShape = std::vector<DimExpr>;

// Resolves sizes (-1: not yet known) from the real shape of a tensor and checks it against the declaration. Returns
// false if a size could not be checked because two of its dimensions are unknown; call again when another tensor has
// resolved one. Throws Error naming the tensor on a conflict.
bool match_shape(const std::string& tensor, const SymbolicShape& declared, std::span<const int64_t> real,
                 std::span<const std::string> names, std::vector<int64_t>& sizes);

// Returns "[2, 64]".
std::string shape_text(std::span<const int64_t> shape);

}  // namespace atb_core
