// SPDX-License-Identifier: Apache-2.0
#include "atb/layout.h"

#include <algorithm>
#include <cstring>

#include "graph/dims.h"

namespace atb_core::ascend {
namespace {

constexpr int64_t kBlockRows = 16;
constexpr int64_t kBlockBytes = 32;

struct NzShape {
  int64_t batch, m, n, c;
};

NzShape nz_shape(DataType dtype, std::span<const int64_t> shape) {
  NzShape nz{1, 0, 0, kBlockBytes / static_cast<int64_t>(itemsize(dtype))};
  if (shape.size() == 4) {
    nz = {shape[0], shape[1], shape[2] * shape[3], nz.c};
  } else if (shape.size() == 3) {
    nz = {shape[0], shape[1], shape[2], nz.c};
  } else if (shape.size() == 2) {
    nz = {1, shape[0], shape[1], nz.c};
  } else {
    fail("a tensor ", shape_text(shape), " has no FRACTAL_NZ layout");
  }
  if (nz.m % kBlockRows != 0 || nz.n % nz.c != 0) {
    fail("a tensor ", shape_text(shape), " has no FRACTAL_NZ layout: ", nz.m, " is no multiple of ", kBlockRows, " or ",
         nz.n, " none of ", nz.c);
  }
  return nz;
}

}  // namespace

aclDataType acl_type(DataType dtype) {
  switch (dtype) {
    case DataType::f32:
      return ACL_FLOAT;
    case DataType::f16:
      return ACL_FLOAT16;
    case DataType::bf16:
      return ACL_BF16;
    case DataType::i8:
      return ACL_INT8;
    case DataType::i32:
      return ACL_INT32;
    case DataType::i64:
      return ACL_INT64;
    case DataType::b8:
      return ACL_BOOL;
  }
  return ACL_DT_UNDEFINED;
}

::atb::TensorDesc describe_tensor(DataType dtype, std::span<const int64_t> shape, Layout layout) {
  ::atb::TensorDesc desc;
  desc.dtype = acl_type(dtype);
  desc.format = layout == Layout::nz ? ACL_FORMAT_FRACTAL_NZ : ACL_FORMAT_ND;
  if (layout == Layout::nz) {
    const NzShape nz = nz_shape(dtype, shape);
    desc.shape.dimNum = 4;
    const int64_t dims[] = {nz.batch, nz.n / nz.c, nz.m, nz.c};
    std::copy(std::begin(dims), std::end(dims), desc.shape.dims);
    return desc;
  }
  desc.shape.dimNum = shape.size();
  std::copy(shape.begin(), shape.end(), desc.shape.dims);
  return desc;
}

size_t tensor_bytes(DataType dtype, std::span<const int64_t> shape) {
  size_t bytes = itemsize(dtype);
  for (int64_t size : shape) bytes *= static_cast<size_t>(size);
  return bytes;
}

std::vector<std::byte> to_nz(const std::byte* data, DataType dtype, std::span<const int64_t> shape) {
  const NzShape nz = nz_shape(dtype, shape);
  const int64_t columns = nz.n / nz.c;
  std::vector<std::byte> result(tensor_bytes(dtype, shape));
  for (int64_t b = 0; b < nz.batch; ++b) {
    for (int64_t row = 0; row < nz.m; ++row) {
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t from = ((b * nz.m + row) * columns + column) * kBlockBytes;
        const int64_t to = ((b * columns + column) * nz.m + row) * kBlockBytes;
        std::memcpy(result.data() + to, data + from, kBlockBytes);
      }
    }
  }
  return result;
}

}  // namespace atb_core::ascend
