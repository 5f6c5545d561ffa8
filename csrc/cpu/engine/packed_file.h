// SPDX-License-Identifier: Apache-2.0
// Files of packed weights, which processes map instead of packing. In such a file are a header, a table, and the packed
// matrices at multiples of kAlignment, all little endian as in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "atb_core/types.h"
#include "cpu/engine/memory.h"
#include "cpu/isa.h"
#include "cpu/kernels/quant.h"

namespace atb_core {

// The longest key.
inline constexpr size_t kPackedKeyBytes = 64;

// Returns the name of the layouts of a level; files of one are of no use to a level with another.
std::string_view packed_layout(cpu::Isa isa);

// A weight in such a file. One that is not quantised has one piece, of the format `none` and without n and k.
struct StoredWeight {
  struct Piece {
    cpu::QuantFormat format;
    int64_t n, k;
    const std::byte* data;
    uint64_t bytes;
    uint64_t offset = 0;  // in the file
  };
  std::string name;
  DataType dtype;
  uint8_t layout;
  std::vector<int64_t> shape;
  std::vector<Piece> pieces;
};

// Writes an empty file. Returns false if `interrupted` did, which is asked now and then. Throws Error if the system
// refuses, for example for want of space.
bool write_packed(int descriptor, const std::string& key, std::vector<StoredWeight> weights,
                  const std::function<bool()>& interrupted);

// Returns the weights of a file, of which the places of all pieces are in the file; nothing if it has another key or was
// written by another version. Throws Error if it is damaged.
std::optional<std::vector<StoredWeight>> read_packed(const FileMapping& file, const std::string& key);

}  // namespace atb_core
