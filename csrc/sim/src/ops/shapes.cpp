// SPDX-License-Identifier: Apache-2.0
#include "ops/shapes.h"

#include "ops/columns.h"

namespace atb::sim {

int64_t product(const Sizes& shape) { return product(shape, 0, shape.size()); }

int64_t product(const Sizes& shape, size_t begin, size_t end) {
  int64_t count = 1;
  for (size_t i = begin; i < end; ++i) count *= shape[i];
  return count;
}

std::string text(const Sizes& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return out + "]";
}

const char* text(aclDataType dtype) {
  switch (dtype) {
    case ACL_FLOAT:
      return "float32";
    case ACL_FLOAT16:
      return "float16";
    case ACL_BF16:
      return "bfloat16";
    case ACL_INT8:
      return "int8";
    case ACL_UINT8:
      return "uint8";
    case ACL_INT16:
      return "int16";
    case ACL_INT32:
      return "int32";
    case ACL_UINT32:
      return "uint32";
    case ACL_INT64:
      return "int64";
    case ACL_UINT64:
      return "uint64";
    case ACL_BOOL:
      return "bool";
    case ACL_DT_UNDEFINED:
      return "undefined";
    default:
      return "another type";
  }
}

TensorDesc describe(aclDataType dtype, const Sizes& shape, aclFormat format) {
  TensorDesc desc;
  desc.dtype = dtype;
  desc.format = format;
  desc.shape.dimNum = shape.size();
  for (size_t i = 0; i < shape.size() && i < MAX_DIM; ++i) desc.shape.dims[i] = shape[i];
  return desc;
}

TensorDesc with_sizes(const TensorDesc& like, const Sizes& shape) { return describe(like.dtype, shape, like.format); }

Status Rules::limits(const std::vector<TensorDesc>&, const std::vector<TensorDesc>&) const { return NO_ERROR; }

Status Rules::check(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out) const {
  ATB_SIM_TRY(match_columns(name_, key(), in, out));
  std::vector<TensorDesc> expected(out.size());
  ATB_SIM_TRY(shapes(in, expected));
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].dtype != expected[i].dtype) {
      return refuse(ERROR_INVALID_TENSOR_DTYPE, "output ", i, " is ", text(out[i].dtype), ", expected ",
                    text(expected[i].dtype));
    }
    if (rank(out[i]) != rank(expected[i])) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "output ", i, " has the shape ", text(out[i]), ", expected ",
                    text(expected[i]));
    }
    if (sizes(out[i]) != sizes(expected[i])) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "output ", i, " has the shape ", text(out[i]), ", expected ",
                    text(expected[i]));
    }
  }
  return limits(in, out);
}

Status PlainRules::prepare(const std::vector<TensorDesc>&, const std::vector<TensorDesc>&,
                           const std::vector<const int32_t*>&, Kernel& kernel) const {
  kernel = this->kernel();
  return NO_ERROR;
}

}  // namespace atb::sim
