// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Rows of the low-rank matrix, and lanes of columns, that are in registers at a time.
inline constexpr int kLoraRanks = 4;
inline constexpr int kLoraLanes = 4;

// The adapter of each token. Everything here is the same on all threads.
class LoraRows {
 public:
  explicit LoraRows(const LoraArgs& args)
      : slots_(args.slots.as<int32_t>()),
        ranks_(args.ranks.as<int32_t>() + args.first),
        shared_(args.slots.dim(0) == 1),
        stride_(args.ranks.dim(1)) {}

  int64_t slot(int64_t token) const { return slots_[shared_ ? 0 : token]; }
  // The rank of a part of the linear; 0: nothing is added.
  int64_t rank(int64_t slot, int64_t part) const { return ranks_[slot * stride_ + part]; }
  // The number of tokens, one or two, that are computed together from this one on.
  int64_t run(int64_t token, int64_t tokens) const {
    return token + 1 < tokens && slot(token + 1) == slot(token) ? 2 : 1;
  }
  bool fit(const LoraArgs& args, const Worker& worker) const {
    const int64_t count = args.a.dim(0), widest = args.a.dim(1) / args.parts;
    for (int64_t i = 0; i < args.slots.dim(0); ++i) {
      if (slots_[i] < count) continue;
      worker.error->report("slots has an adapter that does not exist", i, slots_[i], count);
      return false;
    }
    for (int64_t i = 0; i < count * args.parts; ++i) {
      const int64_t value = rank(i / args.parts, i % args.parts);
      if (value >= 0 && value <= widest) continue;
      worker.error->report("ranks is out of range", i, value, widest);
      return false;
    }
    return true;
  }

 private:
  const int32_t *slots_, *ranks_;
  bool shared_;
  int64_t stride_;
};

// h[row, r] = x[row] . a[r] for up to kLoraRanks rows of a: lane j sums the elements j, j+16, ..., then the tree over
// lanes.
template <int Rows, typename T>
inline void lora_dots(const T* x, int64_t k, const T* a, int64_t ranks, float* h, int64_t h_stride) {
  F16 sums[Rows][kLoraRanks];
  for (auto& row : sums) std::fill(row, row + kLoraRanks, zero());
  for (int64_t i = 0; i < k; i += 16) {
    F16 values[Rows];
    for (int row = 0; row < Rows; ++row) values[row] = load_up_to_16(x + row * k + i, k - i);
    for (int r = 0; r < kLoraRanks; ++r) {
      const F16 w = load_up_to_16(a + std::min<int64_t>(r, ranks - 1) * k + i, k - i);
      for (int row = 0; row < Rows; ++row) sums[row][r] = fma(values[row], w, sums[row][r]);
    }
  }
  for (int row = 0; row < Rows; ++row) {
    for (int64_t r = 0; r < std::min<int64_t>(ranks, kLoraRanks); ++r) {
      h[row * h_stride + r] = horizontal_sum(sums[row][r]);
    }
  }
}

// Adds to each column the bias and then, in ascending r, h[row, r] * b[r, column]; y is added last and the sum is
// rounded once. Lanes * 16 columns, or up to `n` of 16.
template <int Rows, int Lanes, typename T>
inline void lora_columns(const T* y, const float* h, int64_t h_stride, const T* b, const T* bias, int64_t rank,
                         int64_t stride, int64_t n, T* out) {
  F16 sums[Rows][Lanes];
  for (int j = 0; j < Lanes; ++j) {
    const F16 start = load_up_to_16(bias + 16 * j, n - 16 * j);
    for (int row = 0; row < Rows; ++row) sums[row][j] = start;
  }
  for (int64_t r = 0; r < rank; ++r) {
    F16 factors[Rows];
    for (int row = 0; row < Rows; ++row) factors[row] = set1(h[row * h_stride + r]);
    for (int j = 0; j < Lanes; ++j) {
      const F16 w = load_up_to_16(b + r * stride + 16 * j, n - 16 * j);
      for (int row = 0; row < Rows; ++row) sums[row][j] = fma(factors[row], w, sums[row][j]);
    }
  }
  for (int row = 0; row < Rows; ++row) {
    for (int j = 0; j < Lanes; ++j) {
      const int64_t at = row * stride + 16 * j, left = n - 16 * j;
      store_up_to_16(out + at, load_up_to_16(y + at, left) + sums[row][j], left);
    }
  }
}

// Columns [begin, end) of one or two tokens with the same adapter, all of one part.
template <typename T>
inline void lora_part(const LoraArgs& args, int64_t token, int64_t count, int64_t slot, int64_t part, int64_t rank,
                      int64_t begin, int64_t end, const float* h) {
  const int64_t n = args.out.dim(1), h_stride = args.a.dim(1), widest = h_stride / args.parts;
  const T* y = args.y.as<T>() + token * n;
  T* out = args.out.as<T>() + token * n;
  if (rank == 0) {
    for (int64_t row = 0; row < count; ++row) {
      std::memcpy(out + row * n + begin, y + row * n + begin, static_cast<size_t>(end - begin) * sizeof(T));
    }
    return;
  }
  const float* own = h + token * h_stride + part * widest;
  const T* b = args.b.as<T>() + slot * widest * n;
  const T* bias = args.bias.as<T>() + slot * n;
  const auto columns = [&](auto rows, auto lanes, int64_t c, int64_t left) {
    lora_columns<rows(), lanes()>(y + c, own, h_stride, b + c, bias + c, rank, n, left, out + c);
  };
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  using Wide = std::integral_constant<int, kLoraLanes>;
  constexpr int64_t step = 16 * kLoraLanes;
  int64_t c = begin;
  for (; c + step <= end; c += step) count == 2 ? columns(Two{}, Wide{}, c, step) : columns(One{}, Wide{}, c, step);
  for (; c < end; c += 16) count == 2 ? columns(Two{}, One{}, c, end - c) : columns(One{}, One{}, c, end - c);
}

// The first products, x times a, of all tokens with an adapter. Pieces go to the threads in turn.
template <typename T>
inline void lora_project(const LoraArgs& args, const LoraRows& adapters, float* h, const Worker& worker) {
  const int64_t tokens = args.x.dim(0), k = args.x.dim(1), h_stride = args.a.dim(1), widest = h_stride / args.parts;
  int64_t piece = 0;
  for (int64_t token = 0, count = 0; token < tokens; token += count) {
    count = adapters.run(token, tokens);
    const int64_t slot = adapters.slot(token);
    for (int64_t part = 0; slot >= 0 && part < args.parts; ++part) {
      const int64_t rank = adapters.rank(slot, part);
      for (int64_t r = 0; r < rank; r += kLoraRanks, ++piece) {
        if (piece % worker.count != worker.index) continue;
        const T* x = args.x.as<T>() + token * k;
        const T* a = args.a.as<T>() + (slot * h_stride + part * widest + r) * k;
        float* out = h + token * h_stride + part * widest + r;
        count == 2 ? lora_dots<2>(x, k, a, rank - r, out, h_stride) : lora_dots<1>(x, k, a, rank - r, out, h_stride);
      }
    }
  }
}

// The second products. Every thread takes columns of all tokens.
template <typename T>
inline void lora_expand(const LoraArgs& args, const LoraRows& adapters, const float* h, const Worker& worker) {
  const int64_t tokens = args.x.dim(0), n = args.out.dim(1);
  const auto [begin, end] = worker.share(n, 16 * kLoraLanes);
  for (int64_t token = 0, count = 0; token < tokens; token += count) {
    count = adapters.run(token, tokens);
    const int64_t slot = adapters.slot(token);
    for (int64_t part = 0, column = 0; part < args.parts; column += args.sizes[part++]) {
      const int64_t first = std::max(begin, column), last = std::min(end, column + args.sizes[part]);
      const int64_t rank = slot < 0 ? 0 : adapters.rank(slot, part);
      if (first < last) lora_part<T>(args, token, count, slot, part, rank, first, last, h);
    }
  }
}

inline void lora(const LoraArgs& args, const Worker& worker) {
  const LoraRows adapters(args);
  if (!adapters.fit(args, worker)) return;
  auto* h = reinterpret_cast<float*>(worker.shared);
  with_float_type(args.out.dtype, worker, [&](auto tag) {
    lora_project<decltype(tag)>(args, adapters, h, worker);
    worker.sync();
    lora_expand<decltype(tag)>(args, adapters, h, worker);
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
