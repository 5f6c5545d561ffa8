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
  if (layout == Layout::transposed) {
    if (shape.size() != 2) fail("a tensor ", shape_text(shape), " cannot be transposed: it is no matrix");
    std::swap(desc.shape.dims[0], desc.shape.dims[1]);
  }
  return desc;
}

::atb::TensorDesc describe_part(const QuantFormat& format, DataType dtype, std::span<const int64_t> shape,
                                Layout layout) {
  const int64_t n = shape[0], k = shape[1], per_byte = 8 / format.bits;
  std::vector<int64_t> sizes;
  if (layout == Layout::integers) {
    sizes = {n, k / per_byte};
    if (format.group > 0) sizes = {k, n / per_byte};
    return describe_tensor(DataType::i8, sizes, Layout::nd);
  }
  sizes = {n};
  if (format.group > 0) sizes = {k / format.group, n};
  return describe_tensor(dtype, sizes, Layout::nd);
}

size_t desc_bytes(const ::atb::TensorDesc& desc) {
  size_t bytes = 1;
  for (DataType known : {DataType::f32, DataType::f16, DataType::bf16, DataType::i32, DataType::i64}) {
    if (acl_type(known) == desc.dtype) bytes = itemsize(known);
  }
  for (uint64_t axis = 0; axis < desc.shape.dimNum; ++axis) bytes *= static_cast<size_t>(desc.shape.dims[axis]);
  return bytes;
}

size_t tensor_bytes(DataType dtype, std::span<const int64_t> shape) {
  size_t bytes = itemsize(dtype);
  for (int64_t size : shape) bytes *= static_cast<size_t>(size);
  return bytes;
}

namespace {

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

// Works in tiles: row by row it would touch as many pages as there are columns.
template <size_t kItem>
void transpose(const std::byte* data, int64_t rows, int64_t columns, std::byte* result) {
  constexpr int64_t kTile = 64;
  for (int64_t top = 0; top < rows; top += kTile) {
    for (int64_t left = 0; left < columns; left += kTile) {
      for (int64_t row = top; row < std::min(top + kTile, rows); ++row) {
        for (int64_t column = left; column < std::min(left + kTile, columns); ++column) {
          const auto from = static_cast<size_t>(row * columns + column), to = static_cast<size_t>(column * rows + row);
          std::memcpy(result + to * kItem, data + from * kItem, kItem);
        }
      }
    }
  }
}

std::vector<std::byte> transposed(const std::byte* data, size_t item, int64_t rows, int64_t columns) {
  std::vector<std::byte> result(item * static_cast<size_t>(rows * columns));
  const auto turn = item == 1 ? transpose<1> : item == 2 ? transpose<2> : item == 4 ? transpose<4> : transpose<8>;
  turn(data, rows, columns, result.data());
  return result;
}

std::vector<std::byte> to_ones(const std::byte* data, DataType dtype, size_t bytes) {
  const uint16_t one = dtype == DataType::bf16 ? 0x3F80 : 0x3C00;
  std::vector<std::byte> result(bytes);
  for (size_t at = 0; at + sizeof one <= bytes; at += sizeof one) {
    uint16_t bits = 0;
    std::memcpy(&bits, data + at, sizeof bits);
    const uint16_t value = (bits & 0x7FFF) != 0 ? one : 0;
    std::memcpy(result.data() + at, &value, sizeof value);
  }
  return result;
}

}  // namespace

const std::byte* arranged(const std::byte* data, DataType dtype, std::span<const int64_t> shape, Layout layout,
                          std::vector<std::byte>& memory) {
  if (layout == Layout::nd) return data;
  if (layout == Layout::nz) {
    memory = to_nz(data, dtype, shape);
  } else if (layout == Layout::ones) {
    memory = to_ones(data, dtype, tensor_bytes(dtype, shape));
  } else {
    memory = transposed(data, itemsize(dtype), shape[0], shape[1]);
  }
  return memory.data();
}

}  // namespace atb_core::ascend
