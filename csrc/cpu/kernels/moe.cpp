// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/moe.h"

#include <algorithm>
#include <cstring>

namespace atb_core::cpu {
namespace {

// Adds the choices [begin, end) to the number of rows of each expert; returns false if one names no expert.
bool count_rows(const int32_t* experts, int64_t begin, int64_t end, int64_t count, int64_t* rows, ErrorSlot& error) {
  for (int64_t i = begin; i < end; ++i) {
    if (experts[i] < 0 || experts[i] >= count) {
      error.report("expert_idx names no expert", i, experts[i], count);
      return false;
    }
    ++rows[experts[i]];
  }
  return true;
}

}  // namespace

ScratchSize init_routing_scratch(const InitRoutingArgs& args) {
  return {.per_thread = 2 * static_cast<size_t>(args.ends.dim(0)) * sizeof(int64_t)};
}

// A counting sort. Each thread counts everything, which is shorter than a barrier, and moves its own tokens.
void init_routing(const InitRoutingArgs& args, const Worker& worker) {
  const int64_t tokens = args.experts.dim(0), k = args.experts.dim(1), count = args.ends.dim(0);
  const int32_t* experts = args.experts.as<int32_t>();
  const auto [begin, end] = worker.share(tokens);
  auto* rows = reinterpret_cast<int64_t*>(worker.scratch);
  int64_t* next = rows + count;  // the next row of each expert, for this thread's tokens
  std::fill(rows, rows + count, 0);
  if (!count_rows(experts, 0, begin * k, count, rows, *worker.error)) return;
  std::copy(rows, rows + count, next);
  if (!count_rows(experts, begin * k, tokens * k, count, rows, *worker.error)) return;
  int64_t row = 0;
  for (int64_t e = 0; e < count; ++e) {
    next[e] += row;
    row += rows[e];
    if (worker.index == 0) args.ends.as<int64_t>()[e] = row;
  }
  const size_t bytes = static_cast<size_t>(args.x.dim(1)) * itemsize(args.x.dtype);
  for (int64_t i = begin * k; i < end * k; ++i) {
    const int64_t to = next[experts[i]]++;
    args.places.as<int32_t>()[i] = static_cast<int32_t>(to);
    if (bytes == 0) continue;  // memory without bytes may be null, which memcpy does not take
    std::memcpy(args.rows.as<std::byte>() + static_cast<size_t>(to) * bytes,
                args.x.as<std::byte>() + static_cast<size_t>(i / k) * bytes, bytes);
  }
}

}  // namespace atb_core::cpu
