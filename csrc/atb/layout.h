// SPDX-License-Identifier: Apache-2.0
// Tensors as ATB describes them, and the layout FRACTAL_NZ.
#pragma once

#include <atb/atb_infer.h>

#include <cstddef>
#include <span>
#include <vector>

#include "atb/lowering.h"
#include "atb_core/types.h"

namespace atb_core::ascend {

aclDataType acl_type(DataType dtype);

// Returns ATB's description of a tensor of this shape. Transposed, [n, k] becomes [k, n]. In nz the last two dimensions
// are cut into blocks: [m, n] becomes [1, n / c, m, c] and [b, m, n] becomes [b, n / c, m, c], c elements being 32
// bytes; a paged cache [blocks, slots, heads, size] becomes [blocks, heads * size / c, slots, c]. Throws Error for
// sizes that nz cannot have: m has to be a multiple of 16 and n one of c.
::atb::TensorDesc describe_tensor(DataType dtype, std::span<const int64_t> shape, Layout layout);

// Returns the same of a part of a matrix [n, k] that is stored as integers. One scale for each row: integers [n, k],
// scales and offsets [n]. Groups: integers [k, n], scales and offsets [groups, n]. Two integers of four bits are one
// int8, the first one in its low half.
::atb::TensorDesc describe_part(const QuantFormat& format, DataType dtype, std::span<const int64_t> shape,
                                Layout layout);

// Returns the bytes of a tensor of one of the types above.
size_t desc_bytes(const ::atb::TensorDesc& desc);

size_t tensor_bytes(DataType dtype, std::span<const int64_t> shape);

// Returns the elements of a row-major tensor in a layout: `data` itself in nd, else a conversion in `memory`: [m, n] or
// [b, m, n] in nz, [n, k] transposed. Ones are for float16 and bfloat16.
const std::byte* arranged(const std::byte* data, DataType dtype, std::span<const int64_t> shape, Layout layout,
                          std::vector<std::byte>& memory);

}  // namespace atb_core::ascend
