// SPDX-License-Identifier: Apache-2.0
// Packs quantised matrices and reads single rows back.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/quant.h"
#include "cpu/kernels/quant_blocks.h"

namespace atb_core::cpu {
namespace {

struct NamedFormat {
  QuantFormat format;
  std::string_view name;
};
constexpr std::array kNames = {
    NamedFormat{QuantFormat::int8, "int8"}, NamedFormat{QuantFormat::int4, "int4"},
    NamedFormat{QuantFormat::q4_0, "Q4_0"}, NamedFormat{QuantFormat::q4_1, "Q4_1"},
    NamedFormat{QuantFormat::q5_0, "Q5_0"}, NamedFormat{QuantFormat::q5_1, "Q5_1"},
    NamedFormat{QuantFormat::q8_0, "Q8_0"}, NamedFormat{QuantFormat::q3_k, "Q3_K"},
    NamedFormat{QuantFormat::q4_k, "Q4_K"}, NamedFormat{QuantFormat::q5_k, "Q5_K"},
    NamedFormat{QuantFormat::q6_k, "Q6_K"}, NamedFormat{QuantFormat::iq4_nl, "IQ4_NL"},
};

// The start of 16 columns in a packed matrix: [n / 32][steps][2][step].
int64_t block_offset(const QuantLayout& layout, int64_t k, int64_t block) {
  const auto bytes = static_cast<int64_t>(layout.step_bytes());
  return (block / kPairBlocks * quant_steps(layout, k) * kPairBlocks + block % kPairBlocks) * bytes;
}

template <typename T>
void put(std::byte* dst, size_t index, T value) {
  std::memcpy(dst + index * sizeof(T), &value, sizeof(T));
}
template <typename T>
T at(const std::byte* src, size_t index) {
  T value;
  std::memcpy(&value, src + index * sizeof(T), sizeof(T));
  return value;
}

// Where bits of element k of a column are: bytes of 4 successive elements lie together, 16 columns after each other
// (a word for each of 8 groups of 4 in 32 elements). Words w and w + 1 share bytes of 4 bits; of further bits, 8 words
// (one bit) or 4 words (two bits) share theirs.
struct BitPlace {
  size_t low, high;
  int low_shift, high_shift;
  BitPlace(const QuantLayout& layout, int column, int k) {
    const int sub = k / 32, word = k % 32 / 4;
    const auto lane = static_cast<size_t>(column * 4 + k % 4);
    if (layout.bits == 8) {
      low = static_cast<size_t>(sub * 8 + word) * 64 + lane;
      low_shift = high_shift = 0;
      high = 0;
      return;
    }
    low = static_cast<size_t>(sub * 4 + word / 2) * 64 + lane;
    low_shift = word % 2 * 4;
    const int high_bits = layout.bits - 4, per_plane = high_bits == 2 ? 4 : 8;
    const int planes = high_bits == 2 ? 2 : 1;
    high = layout.low_bytes() + static_cast<size_t>(sub * planes + word / per_plane) * 64 + lane;
    high_shift = word % per_plane * high_bits;
  }
};

// The words of 32 elements of a column: `low` and `high` are the places of the first ones, the others lie 16 columns on.
template <int Bits>
void write_words(const uint8_t* q, std::byte* low, std::byte* high) {
  uint32_t words[8];
  std::memcpy(words, q, sizeof words);
  for (size_t w = 0; w < 8; ++w) {
    if constexpr (Bits == 8) put(low, w * kBlockColumns, words[w]);
    if constexpr (Bits < 8) {
      if (w % 2 == 0) put(low, w / 2 * kBlockColumns, (words[w] & 0x0f0f0f0fU) | (words[w + 1] & 0x0f0f0f0fU) << 4);
    }
  }
  if constexpr (Bits == 5 || Bits == 6) {
    constexpr size_t kHighBits = Bits - 4, kShared = Bits == 5 ? 8 : 4;
    for (size_t first = 0; first < 8; first += kShared) {
      uint32_t shared = 0;
      for (size_t w = 0; w < kShared; ++w) {
        shared |= (words[first + w] >> 4 & (Bits == 5 ? 0x01010101U : 0x03030303U)) << w * kHighBits;
      }
      put(high, first / kShared * kBlockColumns, shared);
    }
  }
}

template <int Bits>
void write_column(const QuantLayout& layout, std::byte* step, int column, const uint8_t* q) {
  constexpr size_t kLow = Bits == 8 ? 32 * 16 : 32 * 8, kHigh = Bits == 8 ? 0 : 32 * 2 * (Bits - 4);
  std::byte* low = step + static_cast<size_t>(column) * sizeof(uint32_t);
  std::byte* high = low + layout.low_bytes();
  for (int k = 0; k < layout.step; k += 32, low += kLow, high += kHigh) write_words<Bits>(q + k, low, high);
}

void write_values(const QuantLayout& layout, std::byte* step, int column, const uint8_t* q) {
  switch (layout.bits) {
    case 4:
      return write_column<4>(layout, step, column, q);
    case 5:
      return write_column<5>(layout, step, column, q);
    case 6:
      return write_column<6>(layout, step, column, q);
    default:
      return write_column<8>(layout, step, column, q);
  }
}

void read_values(const QuantLayout& layout, const std::byte* step, int column, int* q) {
  for (int k = 0; k < layout.step; ++k) {
    const BitPlace place(layout, column, k);
    const auto low = static_cast<unsigned>(step[place.low]);
    q[k] = static_cast<int>(layout.bits == 8 ? low : low >> place.low_shift & 15);
    if (layout.bits == 5)
      q[k] |= static_cast<int>(static_cast<unsigned>(step[place.high]) >> place.high_shift & 1) << 4;
    if (layout.bits == 6)
      q[k] |= static_cast<int>(static_cast<unsigned>(step[place.high]) >> place.high_shift & 3) << 4;
  }
}

void write_scales(const QuantLayout& layout, std::byte* step, int column, const QuantStep& values) {
  std::byte* scales = step + layout.low_bytes() + layout.high_bytes();
  const auto c = static_cast<size_t>(column);
  const int groups = layout.step / (layout.scales == QuantScales::super_16 ? 16 : 32);
  switch (layout.scales) {
    case QuantScales::channels:
    case QuantScales::integers:
      return;
    case QuantScales::halves:
      for (int g = 0; g < groups; ++g) {
        put(scales, static_cast<size_t>(g) * 16 + c, values.half_scale[g]);
        if (layout.minimum) put(scales, static_cast<size_t>(groups + g) * 16 + c, values.half_min[g]);
      }
      return;
    case QuantScales::super_32:
      for (int g = 0; g < groups; ++g) {
        put(scales, static_cast<size_t>(g) * 16 + c, values.scale[g]);
        put(scales, static_cast<size_t>(groups + g) * 16 + c, values.min[g]);
      }
      put(scales + 256, c, values.half_scale[0]);
      put(scales + 288, c, values.half_min[0]);
      return;
    case QuantScales::super_16:
      for (int g = 0; g < groups; ++g) put(scales, static_cast<size_t>(g) * 16 + c, values.scale[g]);
      put(scales + 256, c, values.half_scale[0]);
      return;
  }
}

// The elements of one step of a column.
void read_step(const QuantLayout& layout, const std::byte* step, int column, float channel, float* out) {
  const std::byte* scales = step + layout.low_bytes() + layout.high_bytes();
  const auto c = static_cast<size_t>(column);
  int q[256];
  read_values(layout, step, column, q);
  for (int k = 0; k < layout.step; ++k) {
    const auto group = static_cast<size_t>(k / 32);
    const auto value = static_cast<float>(q[k] - layout.zero);
    switch (layout.scales) {
      case QuantScales::integers:
        out[k] = value;
        break;
      case QuantScales::channels:
        out[k] = channel * value;
        break;
      case QuantScales::halves: {
        const float product = half_to_float(at<uint16_t>(scales, group * 16 + c)) * value;
        const auto groups = static_cast<size_t>(layout.step / 32);
        out[k] = layout.minimum ? product + half_to_float(at<uint16_t>(scales, (groups + group) * 16 + c)) : product;
        break;
      }
      case QuantScales::super_32: {
        const float d = half_to_float(at<uint16_t>(scales + 256, c)), e = half_to_float(at<uint16_t>(scales + 288, c));
        out[k] = d * static_cast<float>(at<uint8_t>(scales, group * 16 + c)) * value -
                 e * static_cast<float>(at<uint8_t>(scales, (8 + group) * 16 + c));
        break;
      }
      case QuantScales::super_16: {
        const float d = half_to_float(at<uint16_t>(scales + 256, c));
        out[k] = d * static_cast<float>(at<int8_t>(scales, static_cast<size_t>(k / 16) * 16 + c)) * value;
        break;
      }
    }
  }
}

float element(const void* src, DataType dtype, int64_t i) {
  if (dtype == DataType::f32) return static_cast<const float*>(src)[i];
  const uint16_t raw = static_cast<const uint16_t*>(src)[i];
  return dtype == DataType::f16 ? half_to_float(raw) : std::bit_cast<float>(uint32_t{raw} << 16);
}

void write_step(const QuantLayout& layout, std::byte* step, int column, const QuantStep& values) {
  write_values(layout, step, column, values.q);
  write_scales(layout, step, column, values);
}

// The scale and the values of a whole row of int8; false for a row that is not finite.
bool channel_scale(const void* src, DataType dtype, int64_t row, int64_t k, float& scale) {
  float largest = 0;
  for (int64_t i = 0; i < k; ++i) {
    const float x = std::fabs(element(src, dtype, row * k + i));
    if (!(x <= 3.0e38F)) return false;
    largest = std::max(largest, x);
  }
  scale = largest < 0x1p-100F ? 0 : largest / 127;
  return true;
}

void channel_step(const void* src, DataType dtype, int64_t row, int64_t k, int64_t first, float scale, QuantStep& out) {
  const float inverse = scale == 0 ? 0 : 1 / scale;
  for (int i = 0; i < kChannels8.step; ++i) {
    const float x = first + i < k ? element(src, dtype, row * k + first + i) : 0;
    out.q[i] = static_cast<uint8_t>(128 + std::clamp(std::nearbyint(x * inverse), -127.0F, 127.0F));
  }
}

}  // namespace

std::string_view name(QuantFormat format) {
  for (const NamedFormat& known : kNames) {
    if (known.format == format) return known.name;
  }
  return "none";
}

std::optional<QuantFormat> quant_format_from_name(std::string_view text) {
  for (const NamedFormat& known : kNames) {
    if (known.name == text) return known.format;
  }
  return std::nullopt;
}

static size_t steps_bytes(const QuantLayout& layout, int64_t n, int64_t k) {
  const int64_t pairs = (n + kPairBlocks * kBlockColumns - 1) / (kPairBlocks * kBlockColumns);
  return static_cast<size_t>(pairs * quant_steps(layout, k) * kPairBlocks) * layout.step_bytes();
}

size_t quant_packed_bytes(QuantFormat format, int64_t n, int64_t k) {
  const QuantLayout layout = quant_layout(format);
  const size_t columns = align_up(static_cast<size_t>(n), kPairBlocks * kBlockColumns);
  return steps_bytes(layout, n, k) + (layout.scales == QuantScales::channels ? columns * sizeof(float) : 0);
}

const float* quant_channel_scales(const std::byte* data, QuantFormat format, int64_t n, int64_t k) {
  const QuantLayout layout = quant_layout(format);
  if (layout.scales != QuantScales::channels) return nullptr;
  return reinterpret_cast<const float*>(data + steps_bytes(layout, n, k));
}

size_t quant_row_bytes(QuantFormat format, int64_t k) {
  const QuantLayout layout = quant_layout(format);
  return static_cast<size_t>(k / layout.block * layout.block_bytes);
}

void quant_pack(QuantFormat format, const void* src, int64_t n, int64_t k, std::byte* dst, int64_t block_begin,
                int64_t block_end) {
  const QuantLayout layout = quant_layout(format);
  const size_t row_bytes = quant_row_bytes(format, k), bytes = layout.step_bytes();
  const auto* rows = static_cast<const std::byte*>(src);
  for (int64_t block = block_begin; block < block_end; ++block) {
    std::byte* step = dst + block_offset(layout, k, block);
    for (int64_t s = 0; s < quant_steps(layout, k); ++s, step += kPairBlocks * bytes) {
      std::memset(step, 0, bytes);
      QuantStep values;  // at the end of the rows, all columns leave the same elements as they are
      for (int c = 0; c < kBlockColumns && block * kBlockColumns + c < n; ++c) {
        const std::byte* row = rows + static_cast<size_t>(block * kBlockColumns + c) * row_bytes;
        read_blocks(format, row, s * layout.step, k, values);
        write_step(layout, step, c, values);
      }
    }
  }
}

bool quantize_pack(QuantFormat format, const void* src, DataType dtype, int64_t n, int64_t k, std::byte* dst,
                   int64_t block_begin, int64_t block_end) {
  const QuantLayout layout = quant_layout(format);
  const bool channels = layout.scales == QuantScales::channels;
  auto* scales = const_cast<float*>(quant_channel_scales(dst, format, n, k));
  const size_t bytes = layout.step_bytes();
  for (int64_t block = block_begin; block < block_end; ++block) {
    std::byte* first = dst + block_offset(layout, k, block);
    for (int64_t s = 0; s < quant_steps(layout, k); ++s)
      std::memset(first + s * 2 * static_cast<int64_t>(bytes), 0, bytes);
    for (int c = 0; c < kBlockColumns; ++c) {
      const int64_t row = block * kBlockColumns + c;
      if (channels) scales[row] = 0;
      if (row >= n) continue;
      if (channels && !channel_scale(src, dtype, row, k, scales[row])) return false;
      std::byte* step = first;
      for (int64_t s = 0; s < quant_steps(layout, k); ++s, step += kPairBlocks * bytes) {
        QuantStep values;
        if (channels) {
          channel_step(src, dtype, row, k, s * layout.step, scales[row], values);
        } else {
          float x[64];
          for (int i = 0; i < 64; ++i) x[i] = s * 64 + i < k ? element(src, dtype, row * k + s * 64 + i) : 0;
          if (!quantize_groups(x, std::min<int64_t>(64, k - s * 64), values)) return false;
        }
        write_step(layout, step, c, values);
      }
    }
  }
  return true;
}

size_t int_packed_bytes(int64_t n, int64_t k) { return steps_bytes(kIntegers, n, k); }

void int_pack(const int8_t* src, int64_t n, int64_t k, bool src_is_kn, int zero, std::byte* dst, int64_t block_begin,
              int64_t block_end) {
  const int64_t row_stride = src_is_kn ? 1 : k, element_stride = src_is_kn ? n : 1;
  constexpr size_t kBytes = kIntegers.step_bytes();
  for (int64_t block = block_begin; block < block_end; ++block) {
    std::byte* step = dst + block_offset(kIntegers, k, block);
    const int64_t first = block * kBlockColumns;
    const int64_t columns = std::clamp<int64_t>(n - first, 0, kBlockColumns);
    for (int64_t start = 0; start < k; start += kIntegers.step, step += kPairBlocks * kBytes) {
      std::memset(step, zero, kBytes);
      const int64_t elements = std::min<int64_t>(kIntegers.step, k - start);
      for (int64_t c = 0; c < columns; ++c) {
        const int8_t* from = src + (first + c) * row_stride + start * element_stride;
        for (int64_t i = 0; i < elements; ++i) {
          step[i / 4 * 64 + c * 4 + i % 4] = std::byte(static_cast<uint8_t>(from[i * element_stride] + zero));
        }
      }
    }
  }
}

void int_row(const std::byte* data, int64_t k, int64_t row, int zero, int8_t* out) {
  const std::byte* step = data + block_offset(kIntegers, k, row / kBlockColumns);
  const int64_t column = row % kBlockColumns;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t at = i % kIntegers.step;
    const std::byte* place = step + i / kIntegers.step * kPairBlocks * static_cast<int64_t>(kIntegers.step_bytes());
    out[i] = static_cast<int8_t>(static_cast<int>(place[at / 4 * 64 + column * 4 + at % 4]) - zero);
  }
}

void quant_row(QuantFormat format, const std::byte* data, int64_t n, int64_t k, int64_t row, float* out) {
  const QuantLayout layout = quant_layout(format);
  const float* channels = quant_channel_scales(data, format, n, k);
  const std::byte* step = data + block_offset(layout, k, row / kBlockColumns);
  float values[256];
  for (int64_t first = 0; first < k; first += layout.step, step += kPairBlocks * layout.step_bytes()) {
    read_step(layout, step, static_cast<int>(row % kBlockColumns), channels == nullptr ? 0 : channels[row], values);
    std::copy_n(values, std::min<int64_t>(layout.step, k - first), out + first);
  }
}

}  // namespace atb_core::cpu
