// SPDX-License-Identifier: Apache-2.0
// Quantised weights with tile registers, written on a type Tiles as linear_amx-inl.h is. The integers of a group become a
// weight tile, their products with up to 16 rows a tile of sums, which vectors scale and add: products of integers are
// exact, so that the bits are those of linear_quant-inl.h. Include after the level's vec_*.h and ints_*.h.
#pragma once

#include "cpu/kernels/linear_quant-inl.h"
#include "cpu/kernels/tiles.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// Up to 16 rows by a block. Groups go through stages: their weights are unpacked, multiplied, their sums stored, and added.
// A stage works behind the one before: a product is stored when it is done, and what is loaded as a tile, or was stored as
// one, has left the queue of stores.
template <class Tiles, QuantLayout L, int MR>
class QuantRowTile {
  using Row = QuantRow<L>;
  static constexpr bool kHalved = L.scales == QuantScales::super_16;  // two products a group
  static constexpr int kGroup = Row::kGroup, kWords = kGroup / 4;
  static constexpr int kGroups = L.step / kGroup;
  static constexpr size_t kScales = L.low_bytes() + L.high_bytes();

 public:
  static constexpr int kDepth = kHalved ? 16 : kGroup;
  static constexpr int64_t kBehind = 4, kKept = 8;

  QuantRowTile(const TileJob& job, int block)
      : job_(job), block_(block), acc_(job.acc + block * kBlockColumns), next_(job.prefetch) {}

  void run() {
    F16 acc[MR];
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) acc[r] = job_.first ? zero() : load(at(r));
    const Place first{job_.w + static_cast<size_t>(block_) * L.step_bytes(), job_.x, 0};
    Place unpacked = first, multiplied = first, added = first;
    const int64_t groups = job_.steps * kGroups;
    for (int64_t g = 0; g < groups + 2 * kBehind; ++g) {
      if (g < groups) {
        fetch(unpacked);
        unpack<0>(unpacked, words_[g % kKept]);
        go_on(unpacked);
      }
      if (g >= kBehind && g <= groups + kBehind) {
        const int64_t at = g - kBehind;
        if (at < groups) {
          at % 2 == 0 ? multiply<0>(multiplied, words_[at % kKept]) : multiply<1>(multiplied, words_[at % kKept]);
          go_on(multiplied);
        }
        if (at > 0) at % 2 == 0 ? keep<1>(sums_[(at - 1) % kKept]) : keep<0>(sums_[(at - 1) % kKept]);
      }
      if (g >= 2 * kBehind) {
        add(acc, added, sums_[(g - 2 * kBehind) % kKept]);
        go_on(added);
      }
    }
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) store(at(r), acc[r]);
  }

 private:
  struct Place {
    const std::byte *w, *x;
    int group;
    const Row& row(int r) const { return *reinterpret_cast<const Row*>(x + static_cast<size_t>(r) * sizeof(Row)); }
  };
  struct Sums {
    alignas(64) int32_t of[kHalved ? 2 : 1][MR][kBlockColumns];
  };

  float* at(int r) const { return acc_ + r * kPairBlocks * kBlockColumns; }

  static void go_on(Place& place) {
    if (++place.group < kGroups) return;
    place.group = 0;
    place.x += MR * sizeof(Row);
    place.w += kPairBlocks * L.step_bytes();
  }

  // The first block fetches for both.
  void fetch(const Place& place) {
    if (block_ > 0) return;
    if (job_.ahead > 0) {
      constexpr int kLines = static_cast<int>(kPairBlocks * L.step_bytes() / 64);
      const std::byte* line = place.w + job_.ahead + kLines * place.group / kGroups * 64;
      const std::byte* end = place.w + job_.ahead + kLines * (place.group + 1) / kGroups * 64;
      for (; line < end; line += 64) prefetch(line);
    } else if (place.group == 0) {
      for (int i = 0; i < job_.prefetch_lines; ++i, next_ += 64) prefetch(next_);
    }
  }

  template <int W>
  __attribute__((always_inline)) static inline void unpack(const Place& place, std::byte* words) {
    const int sub = Row::kWhole ? W / 8 : place.group;
    store_bytes(words + W * 64, minus(weight_word<L, W % 8>(place.w, sub), L.zero));
    if constexpr (W + 1 < kWords) unpack<W + 1>(place, words);
  }

  template <int Turn>
  __attribute__((always_inline)) static inline void multiply(const Place& place, const std::byte* words) {
    const std::byte* x = place.x + place.group * kGroup;
    Tiles::template zero<Turn>();
    Tiles::template load<4>(x, sizeof(Row));
    Tiles::template load<6>(words, kTileRowBytes);
    Tiles::template dot<Turn, 4, 6>();
    if constexpr (kHalved) {
      Tiles::template zero<Turn + 2>();
      Tiles::template load<5>(x + kDepth, sizeof(Row));
      Tiles::template load<7>(words + kDepth * kBlockColumns, kTileRowBytes);
      Tiles::template dot<Turn + 2, 5, 7>();
    }
  }

  template <int Turn>
  __attribute__((always_inline)) static inline void keep(Sums& sums) {
    Tiles::template store<Turn>(reinterpret_cast<std::byte*>(sums.of[0]), kTileRowBytes);
    if constexpr (kHalved) Tiles::template store<Turn + 2>(reinterpret_cast<std::byte*>(sums.of[1]), kTileRowBytes);
  }

  __attribute__((always_inline)) inline void add(F16 (&acc)[MR], const Place& place, const Sums& sums) const {
    const int g = place.group;
    const auto sum = [&](int r, int half = 0) { return to_float(load_ints(sums.of[half][r])); };
    const auto own = [&](int r) { return set1(place.row(r).scale[g]); };
    if constexpr (L.scales == QuantScales::channels) {
      ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) acc[r] = fma(sum(r), own(r), acc[r]);
      return;
    }
    const auto of = GroupScales<L>::at(place.w + kScales, g);
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
      F16 value = sum(r) * of.scale;
      if constexpr (kHalved) value = fma(sum(r, 1), of.other, value);
      if constexpr (Row::kHasMinima) value = fma(set1(place.row(r).sum[g]), of.other, value);
      acc[r] = fma(value, own(r), acc[r]);
    }
  }

  const TileJob& job_;
  const int block_;
  float* const acc_;
  const std::byte* next_;
  alignas(64) std::byte words_[kKept][kWords * 64];
  Sums sums_[kKept];
};

// The rows for which the tile registers of this thread are configured, 0 if they are not.
inline int& configured_rows() {
  thread_local int rows = 0;
  return rows;
}

// Rows come in pairs, up to MaxRows of them. Up to VectorRows stay in vector registers: they wait for memory.
template <class Tiles, int VectorRows, int MaxRows>
struct TileShapes {
  static constexpr int kRowUnit = 2, kRows = MaxRows;
  static int blocks(int) { return 2; }
  static void begin(int) { configured_rows() = 0; }
  static void end() {
    if (configured_rows() > 0) Tiles::release();
  }

  template <QuantLayout L>
  static void multiply(const TileJob& job) {
    if (job.rows == 1) return multiply_rows<L, 1>(job);
    multiply_pairs<L, MaxRows>(job);
  }

 private:
  // As many rows as the job has, at most `Rows`.
  template <QuantLayout L, int Rows>
  static void multiply_pairs(const TileJob& job) {
    if constexpr (Rows > kRowUnit) {
      if (job.rows < Rows) return multiply_pairs<L, Rows - kRowUnit>(job);
    }
    multiply_rows<L, Rows>(job);
  }

  template <QuantLayout L, int Rows>
  static void multiply_rows(const TileJob& job) {
    if constexpr (Rows <= VectorRows) {
      multiply_quant_tile<L, Rows, kPairBlocks>(job);
    } else {
      using RowTile = QuantRowTile<Tiles, L, Rows>;
      if (configured_rows() != Rows) Tiles::configure(configured_rows() = Rows, RowTile::kDepth);
      for (int block = 0; block < kPairBlocks; ++block) RowTile(job, block).run();
    }
  }
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
