// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <random>

#include "atb_core/types.h"
#include "check.h"
#include "graph/arena.h"

using atb_core::Lifetime;
using atb_core::Placement;

namespace {

bool overlap(const std::vector<Lifetime>& values, const Placement& placement, size_t a, size_t b) {
  const bool in_time = values[a].first <= values[b].last && values[b].first <= values[a].last;
  const size_t end_a = placement.offsets[a] + values[a].bytes, end_b = placement.offsets[b] + values[b].bytes;
  const bool in_space = placement.offsets[a] < end_b && placement.offsets[b] < end_a;
  return in_time && in_space && values[a].bytes > 0 && values[b].bytes > 0;
}

}  // namespace

TEST(values_that_do_not_meet_share_memory) {
  const Placement placement = atb_core::place({{1024, 0, 1}, {1024, 2, 3}, {1024, 4, 5}});
  CHECK(placement.bytes == 1024);
}

TEST(a_chain_needs_two_places) {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 100; ++i) chain.push_back({4096, i, i + 1});
  CHECK(atb_core::place(chain).bytes == 2 * 4096);
}

TEST(small_values_fill_gaps_between_big_ones) {
  // Two large values with disjoint lifetimes, a small one during each of them, and one during both.
  const Placement placement = atb_core::place({{4096, 0, 1}, {2048, 2, 3}, {2048, 2, 3}, {64, 0, 3}});
  CHECK(placement.bytes == 4096 + 64);
}

TEST(nothing_needs_nothing) {
  CHECK(atb_core::place({}).bytes == 0);
  CHECK(atb_core::place({{0, 0, 5}}).bytes == 0);
}

TEST(random_values_never_overlap_and_are_aligned) {
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<Lifetime> values;
    size_t total = 0;
    for (int i = 0; i < 80; ++i) {
      const int first = static_cast<int>(random() % 60);
      values.push_back({random() % 5000, first, first + static_cast<int>(random() % 12)});
      total += atb_core::align_up(values.back().bytes);
    }
    const Placement placement = atb_core::place(values);
    CHECK(placement.bytes <= total);
    for (size_t a = 0; a < values.size(); ++a) {
      CHECK(placement.offsets[a] % atb_core::kAlignment == 0);
      CHECK(placement.offsets[a] + values[a].bytes <= placement.bytes);
      for (size_t b = 0; b < a; ++b) CHECK(!overlap(values, placement, a, b));
    }
  }
}

TEST_MAIN()
