// SPDX-License-Identifier: Apache-2.0
// Writes the packed weight layout (see linear_kernel.h) and reads single rows back.
#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "cpu/kernels/linear.h"
#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/quant_blocks.h"

namespace atb_core::cpu {
namespace {

// The position of element k of a block step's column 0, in elements; column c is c * column_stride further.
struct Place {
  int64_t offset, column_stride;
};

enum class Layout { natural_pairs, chain_pairs, scalars };

Layout layout_of(Isa isa, DataType dtype) {
  if (dtype != DataType::bf16) return Layout::scalars;
  return has_chain_layout(isa, dtype) ? Layout::chain_pairs : Layout::natural_pairs;
}

Place place(Layout layout, int64_t k) {
  switch (layout) {
    case Layout::natural_pairs:
      return {k / 2 * 32 + k % 2, 2};
    case Layout::chain_pairs: {
      const int64_t word = k / 4, chain = k % 2, low = k % 4 / 2;
      return {(word * 2 + chain) * 32 + 1 - low, 2};
    }
    case Layout::scalars:
      return {k * kBlockColumns, 1};
  }
  return {};
}

std::byte* block_start(std::byte* data, DataType dtype, int64_t k, int64_t block) {
  return data + pair_bytes(dtype, k) * static_cast<size_t>(block / kPairBlocks) +
         block_step_bytes(dtype) * static_cast<size_t>(block % kPairBlocks);
}

// The 32 places of a step, computed once per call.
struct Places {
  const Layout layout;
  Place at[kStep];
  explicit Places(Layout wanted) : layout(wanted) {
    for (int64_t i = 0; i < kStep; ++i) at[i] = place(layout, i);
  }
};

template <typename T>
void pack_step(const T* src, int64_t row_stride, int64_t element_stride, int64_t columns, int64_t elements,
               const Places& places, T* dst) {
  if (columns < kBlockColumns || elements < kStep) std::memset(dst, 0, kBlockColumns * kStep * sizeof(T));
  if (element_stride == 1) {
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t i = 0; i < elements; ++i) {
        dst[places.at[i].offset + c * places.at[i].column_stride] = src[c * row_stride + i];
      }
    }
    return;
  }
  for (int64_t i = 0; i < elements; ++i) {
    for (int64_t c = 0; c < columns; ++c) {
      dst[places.at[i].offset + c * places.at[i].column_stride] = src[c * row_stride + i * element_stride];
    }
  }
}

// Swaps the inner halves of two words of a row, (x[0], x[1]) (x[2], x[3]), into a word of each chain.
void split_chains(uint32_t (&row)[kStep / 2]) {
  for (int64_t w = 0; w < kStep / 2; w += 2) {
    const uint32_t low = row[w], high = row[w + 1];
    row[w] = low << 16 | (high & 0xffffU);
    row[w + 1] = (low & 0xffff0000U) | high >> 16;
  }
}

// Packs the rows of a step of a bf16 matrix [n, k], whose layouts are both a transposed 16 x 16 matrix of words.
void pack_step_words(const uint16_t* src, int64_t row_stride, int64_t columns, int64_t elements, bool chains,
                     uint32_t* dst) {
  constexpr int64_t kWords = kStep / 2;
  uint32_t rows[kBlockColumns][kWords];
  if (columns == kBlockColumns && elements == kStep) {
    for (int64_t c = 0; c < kBlockColumns; ++c) std::memcpy(rows[c], src + c * row_stride, sizeof(rows[c]));
  } else {
    std::memset(rows, 0, sizeof(rows));
    for (int64_t c = 0; c < columns; ++c) {
      std::memcpy(rows[c], src + c * row_stride, static_cast<size_t>(elements) * sizeof(uint16_t));
    }
  }
  if (chains) {
    for (auto& row : rows) split_chains(row);
  }
  for (int64_t w = 0; w < kWords; ++w) {
    for (int64_t c = 0; c < kBlockColumns; ++c) dst[w * kBlockColumns + c] = rows[c][w];
  }
}

template <typename T>
void pack_block(const T* src, DataType dtype, int64_t n, int64_t k, bool src_is_kn, std::byte* data, int64_t block,
                const Places& places) {
  const int64_t row_stride = src_is_kn ? 1 : k, element_stride = src_is_kn ? n : 1;
  const int64_t first = block * kBlockColumns;
  const int64_t columns = std::clamp<int64_t>(n - first, 0, kBlockColumns);
  const T* from = src + std::min(first, n - 1) * row_stride;
  std::byte* dst = block_start(data, dtype, k, block);
  for (int64_t s = 0; s < steps_of(k); ++s) {
    const int64_t elements = std::min(kStep, k - s * kStep);
    const T* step = from + s * kStep * element_stride;
    std::byte* to = dst + kPairBlocks * block_step_bytes(dtype) * static_cast<size_t>(s);
    if constexpr (sizeof(T) == 2) {
      if (dtype == DataType::bf16 && !src_is_kn) {
        pack_step_words(step, row_stride, columns, elements, places.layout == Layout::chain_pairs,
                        reinterpret_cast<uint32_t*>(to));
        continue;
      }
    }
    pack_step(step, row_stride, element_stride, columns, elements, places, reinterpret_cast<T*>(to));
  }
}

template <typename T>
void pack_blocks(Isa isa, const void* src, DataType dtype, int64_t n, int64_t k, bool src_is_kn, std::byte* dst,
                 int64_t begin, int64_t end) {
  const Places places(layout_of(isa, dtype));
  for (int64_t b = begin; b < end; ++b) {
    pack_block(static_cast<const T*>(src), dtype, n, k, src_is_kn, dst, b, places);
  }
}

template <typename T>
void gather_row(const PackedWeight& weight, int64_t row, const Places& places, T* out) {
  const int64_t column = row % kBlockColumns;
  const std::byte* step = block_start(const_cast<std::byte*>(weight.data), weight.dtype, weight.k, row / kBlockColumns);
  for (int64_t k = 0; k < weight.k; k += kStep, step += kPairBlocks * block_step_bytes(weight.dtype)) {
    const T* elements = reinterpret_cast<const T*>(step);
    const int64_t count = std::min(kStep, weight.k - k);
    for (int64_t i = 0; i < count; ++i) {
      out[k + i] = elements[places.at[i].offset + column * places.at[i].column_stride];
    }
  }
}

template <typename T, typename Index>
void gather_rows(Isa isa, const PackedWeight& weight, const Index* indices, int64_t count, T* out,
                 const Worker& worker) {
  const Places places(layout_of(isa, weight.dtype));
  const auto [begin, end] = worker.share(count);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t row = static_cast<int64_t>(indices[i]);
    if (row < 0 || row >= weight.n) {
      worker.error->report("index out of range", i, row, weight.n);
      return;
    }
    gather_row(weight, row, places, out + i * weight.k);
  }
}

template <typename T>
void gather_rows(Isa isa, const PackedWeight& weight, const void* indices, DataType index_dtype, int64_t count,
                 void* out, const Worker& worker) {
  if (index_dtype == DataType::i32) {
    gather_rows(isa, weight, static_cast<const int32_t*>(indices), count, static_cast<T*>(out), worker);
  } else {
    gather_rows(isa, weight, static_cast<const int64_t*>(indices), count, static_cast<T*>(out), worker);
  }
}

// Rounds to nearest even, as the vector types do.
void round_row(const std::vector<float>& values, DataType dtype, std::byte* out) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(values[i]);
    if (dtype == DataType::f32) {
      std::memcpy(out + i * 4, &bits, 4);
      continue;
    }
    const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
    const uint32_t bf16 = (nan ? bits | 0x400000U : bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const auto half = dtype == DataType::f16 ? float_to_half(values[i]) : static_cast<uint16_t>(bf16);
    std::memcpy(out + i * 2, &half, 2);
  }
}

void gather_quantized_rows(const PackedWeight& weight, const void* indices, DataType index_dtype, int64_t count,
                           std::byte* out, const Worker& worker) {
  const size_t row_bytes = static_cast<size_t>(weight.k) * itemsize(weight.dtype);
  std::vector<float> values(static_cast<size_t>(weight.k));
  const auto [begin, end] = worker.share(count);
  for (int64_t i = begin; i < end; ++i) {
    int64_t row = index_dtype == DataType::i32 ? static_cast<const int32_t*>(indices)[i]
                                               : static_cast<const int64_t*>(indices)[i];
    if (row < 0 || row >= weight.n) {
      worker.error->report("index out of range", i, row, weight.n);
      return;
    }
    const PackedWeight* piece = &weight;
    for (const PackedWeight& candidate : weight.pieces) {
      piece = &candidate;
      if (row < candidate.n) break;
      row -= candidate.n;
    }
    quant_row(piece->format, piece->data, piece->n, piece->k, row, values.data());
    round_row(values, weight.dtype, out + static_cast<size_t>(i) * row_bytes);
  }
}

}  // namespace

int64_t packed_blocks(int64_t n) {
  return (n + kBlockColumns * kPairBlocks - 1) / (kBlockColumns * kPairBlocks) * kPairBlocks;
}

size_t packed_bytes(Isa, DataType dtype, int64_t n, int64_t k) {
  if (dtype == DataType::i8) return int_packed_bytes(n, k);
  return pair_bytes(dtype, k) * static_cast<size_t>(packed_blocks(n) / kPairBlocks);
}

PackedWeight PackedWeight::matrix(int64_t index) const {
  const size_t bytes = pair_bytes(dtype, k) * static_cast<size_t>(packed_blocks(n) / kPairBlocks);
  PackedWeight one = *this;
  one.data = data + static_cast<size_t>(index) * bytes;
  one.count = 1;
  return one;
}

void pack(Isa isa, const void* src, DataType dtype, int64_t n, int64_t k, bool src_is_kn, std::byte* dst,
          int64_t block_begin, int64_t block_end) {
  if (dtype == DataType::i8) {
    int_pack(static_cast<const int8_t*>(src), n, k, src_is_kn, integer_zero(isa), dst, block_begin, block_end);
  } else if (itemsize(dtype) == 2) {
    pack_blocks<uint16_t>(isa, src, dtype, n, k, src_is_kn, dst, block_begin, block_end);
  } else {
    pack_blocks<uint32_t>(isa, src, dtype, n, k, src_is_kn, dst, block_begin, block_end);
  }
}

void gather_packed_rows(Isa isa, const PackedWeight& weight, const void* indices, DataType index_dtype, int64_t count,
                        void* out, const Worker& worker) {
  if (weight.dtype == DataType::i8) {
    const auto [begin, end] = worker.share(count);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = index_dtype == DataType::i32 ? static_cast<const int32_t*>(indices)[i]
                                                       : static_cast<const int64_t*>(indices)[i];
      if (row < 0 || row >= weight.n) return worker.error->report("index out of range", i, row, weight.n);
      int_row(weight.data, weight.k, row, integer_zero(isa), static_cast<int8_t*>(out) + i * weight.k);
    }
  } else if (weight.quantized()) {
    gather_quantized_rows(weight, indices, index_dtype, count, static_cast<std::byte*>(out), worker);
  } else if (itemsize(weight.dtype) == 2) {
    gather_rows<uint16_t>(isa, weight, indices, index_dtype, count, out, worker);
  } else {
    gather_rows<uint32_t>(isa, weight, indices, index_dtype, count, out, worker);
  }
}

}  // namespace atb_core::cpu
