// SPDX-License-Identifier: Apache-2.0
#include "graph/arena.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "atb_core/types.h"

namespace atb_core {
namespace {

struct Block {
  size_t begin, end;
  int first, last;
};

// Returns the start of the tightest gap of at least `bytes` between blocks, sorted by begin, that live together with
// `value`.
size_t best_gap(const std::vector<Block>& blocks, const Lifetime& value, size_t bytes) {
  size_t free_from = 0, best = SIZE_MAX, best_size = SIZE_MAX;
  for (const Block& block : blocks) {
    if (block.last < value.first || block.first > value.last) continue;
    if (block.begin >= free_from + bytes && block.begin - free_from < best_size) {
      best = free_from;
      best_size = block.begin - free_from;
    }
    free_from = std::max(free_from, block.end);
  }
  return best != SIZE_MAX ? best : free_from;
}

}  // namespace

Placement place(const std::vector<Lifetime>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a].bytes > values[b].bytes; });

  Placement result;
  result.offsets.assign(values.size(), 0);
  std::vector<Block> blocks;
  blocks.reserve(values.size());
  for (size_t index : order) {
    const size_t bytes = align_up(values[index].bytes);
    if (bytes == 0) continue;
    const size_t offset = best_gap(blocks, values[index], bytes);
    const Block block{offset, offset + bytes, values[index].first, values[index].last};
    const auto after = std::upper_bound(blocks.begin(), blocks.end(), block,
                                        [](const Block& a, const Block& b) { return a.begin < b.begin; });
    blocks.insert(after, block);
    result.offsets[index] = offset;
    result.bytes = std::max(result.bytes, block.end);
  }
  return result;
}

}  // namespace atb_core
