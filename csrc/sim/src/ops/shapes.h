// SPDX-License-Identifier: Apache-2.0
// Helpers for tensor descriptions, and the base class of the operations' rules.
#pragma once

#include <atb/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "operation_base.h"
#include "ops/reject.h"

namespace atb::sim {

using Sizes = std::vector<int64_t>;

inline int64_t rank(const TensorDesc& desc) { return static_cast<int64_t>(desc.shape.dimNum); }
inline Sizes sizes(const TensorDesc& desc) { return {desc.shape.dims, desc.shape.dims + desc.shape.dimNum}; }
// Returns the size of an axis; negative axes count from the end.
inline int64_t dim(const TensorDesc& desc, int64_t axis) {
  return desc.shape.dims[axis < 0 ? rank(desc) + axis : axis];
}
int64_t product(const Sizes& shape);
int64_t product(const Sizes& shape, size_t begin, size_t end);
inline int64_t elements(const TensorDesc& desc) { return product(sizes(desc)); }
std::string text(const Sizes& shape);  // "[2, 3]"
inline std::string text(const TensorDesc& desc) { return text(sizes(desc)); }
const char* text(aclDataType dtype);  // "float16"
inline bool is_nz(const TensorDesc& desc) { return desc.format == ACL_FORMAT_FRACTAL_NZ; }
inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Returns a description with another shape, the same dtype and format.
TensorDesc with_sizes(const TensorDesc& like, const Sizes& shape);
TensorDesc describe(aclDataType dtype, const Sizes& shape, aclFormat format = ACL_FORMAT_ND);

// What kernels that work in tiles ask for: a fixed part and one for each row of the result, in steps of 512 bytes.
inline uint64_t tiled_workspace(const TensorDesc& result) {
  constexpr int64_t kFixed = 4096, kRow = 64, kStep = 512;
  const int64_t rows = elements(result) / dim(result, -1);
  return static_cast<uint64_t>(round_up(kFixed + kRow * rows, kStep));
}

// An axis of a tensor of `rank`, made non-negative; -1 if it does not exist.
inline int64_t axis_of(int64_t axis, int64_t rank) {
  const int64_t at = axis < 0 ? axis + rank : axis;
  return at < 0 || at >= rank ? -1 : at;
}

// Reserved bytes must be zero: a newer caller's field would be ignored otherwise.
template <size_t N>
Status check_reserved(const char* op, const uint8_t (&reserved)[N]) {
  for (size_t i = 0; i < N; ++i) {
    if (reserved[i] != 0) {
      return reject(ERROR_INVALID_PARAM, op, ": reserved byte ", i, " of the parameter is ", int{reserved[i]},
                    ", not 0");
    }
  }
  return NO_ERROR;
}

// The base of most operations: a name, fixed counts, a row in the table of columns (ops/columns.cpp), and outputs that
// must match the shape rule. A subclass provides key(), shapes() and a kernel.
class Rules : public OpRules {
 public:
  Rules(std::string name, uint32_t inputs, uint32_t outputs)
      : name_(std::move(name)), inputs_(inputs), outputs_(outputs) {}

  std::string name() const override { return name_; }
  uint32_t inputs() const override { return inputs_; }
  uint32_t outputs() const override { return outputs_; }
  Status infer(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    return shapes(in, out);
  }
  Status check(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out) const override;

 protected:
  // Key of the operation's columns.
  virtual std::string key() const { return name_; }
  // The dims rules that hold at InferShape already, and the outputs.
  virtual Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const = 0;
  // Rules that Setup checks (limits of the kernels).
  virtual Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out) const;

  // reject() with the operation's name in front.
  template <typename... Parts>
  Status refuse(Status status, const Parts&... parts) const {
    return reject(status, name_, ": ", parts...);
  }

 private:
  std::string name_;
  uint32_t inputs_, outputs_;
};

// Most kernels need nothing but the parameters: prepare() hands out a method.
class PlainRules : public Rules {
 public:
  using Rules::Rules;
  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out,
                 const std::vector<const int32_t*>& host, Kernel& kernel) const override;

 protected:
  // A kernel that owns what it needs; it may outlive this object.
  virtual Kernel kernel() const = 0;
};

}  // namespace atb::sim
