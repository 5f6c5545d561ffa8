// SPDX-License-Identifier: Apache-2.0
// The kernel of adapters' products: against its definition on every level and any number of threads, rows without an
// adapter bit by bit, and indices out of range.
#include "kernel_testing.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

constexpr int64_t kSlots = 3, kWidest = 21, kK = 45;
const int64_t kSizes[] = {70, 16, 33};
constexpr int64_t kParts = 3, kN = 119, kMatrices = 5, kFirst = 1;

struct Problem {
  Array y, x, a, b, bias, slots, ranks;

  Problem(DataType dtype, std::vector<int> of_rows, std::vector<int> of_slots)
      : y(random_array(dtype, {7, kN}, 1)),
        x(random_array(dtype, {7, kK}, 2)),
        a(random_array(dtype, {kSlots, kParts * kWidest, kK}, 3)),
        b(random_array(dtype, {kSlots, kWidest, kN}, 4)),
        bias(random_array(dtype, {kSlots, kN}, 5)),
        slots(DataType::i32, {static_cast<int64_t>(of_rows.size())}),
        ranks(DataType::i32, {kSlots, kMatrices}) {
    slots.fill([&](int64_t i) { return static_cast<double>(of_rows[static_cast<size_t>(i)]); });
    ranks.fill([&](int64_t i) { return static_cast<double>(of_slots[static_cast<size_t>(i)]); });
  }

  cpu::LoraArgs args(const Array& out) const { return {y, x, a, b, bias, slots, ranks, out, kSizes, kParts, kFirst}; }
};

const std::vector<int> kRanks = {99, 21, 0, 4, 99, 99, 1, 5, 0, 99, 99, 0, 7, 20, 99};

}  // namespace

TEST(lora_adds_the_products_of_the_adapter_of_each_row) {
  for (DataType dtype : kFloats) {
    const Problem p(dtype, {2, 0, 0, -1, 1, 1, 1}, kRanks);
    Array out(dtype, {7, kN});
    const cpu::LoraArgs args = p.args(out);
    run_everywhere(&KernelTable::lora, args, {&out}, cpu::lora_scratch(args));
    check_close(
        out,
        [&](int64_t i) {
          const int64_t row = i / kN, column = i % kN;
          const auto slot = static_cast<int64_t>(p.slots.at(row));
          const int64_t part = column < 70 ? 0 : column < 86 ? 1 : 2;
          if (slot < 0) return p.y.at(i);
          const auto rank = static_cast<int64_t>(p.ranks.at(slot * kMatrices + kFirst + part));
          if (rank == 0) return p.y.at(i);
          double sum = p.bias.at(slot * kN + column);
          for (int64_t r = 0; r < rank; ++r) {
            double low = 0;
            for (int64_t j = 0; j < kK; ++j) {
              low += p.x.at(row * kK + j) * p.a.at(((slot * kParts + part) * kWidest + r) * kK + j);
            }
            sum += low * p.b.at((slot * kWidest + r) * kN + column);
          }
          return p.y.at(i) + sum;
        },
        kK * kWidest, 8 * kK);
  }
}

TEST(a_slot_or_a_rank_out_of_range_is_reported) {
  Array out(DataType::f32, {7, kN});
  const Problem slot(DataType::f32, {0, 1, 2, 3, 0, 0, 0}, kRanks);
  std::vector<int> ranks = kRanks;
  ranks[6] = 22;
  const Problem rank(DataType::f32, {0}, ranks);
  for (Isa isa : cpu::supported_isas()) {
    const auto error = run(isa, 2, &KernelTable::lora, slot.args(out), cpu::lora_scratch(slot.args(out)));
    CHECK(error && error->position == 3 && error->value == 3 && error->limit == kSlots);
    const auto other = run(isa, 2, &KernelTable::lora, rank.args(out), cpu::lora_scratch(rank.args(out)));
    CHECK(other && other->value == 22 && other->limit == kWidest);
  }
}

TEST_MAIN()
