// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/kernels/sort.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// The sum of exp(x - top); lane j takes elements j, j + 16, ...
template <typename T>
inline F16 sum_of_powers(const T* x, int64_t n, F16 top) {
  F16 sums = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F16 e = exp(load_up_to_16(x + i, n - i) - top);
    sums = sums + (n - i >= 16 ? e : select(first(static_cast<int>(n - i)), e, zero()));
  }
  return set1(horizontal_sum(sums));
}

inline void topk_softmax(const TopkSoftmaxArgs& args, const Worker& worker) {
  const int64_t tokens = args.x.dim(0), experts = args.x.dim(1), k = args.weights.dim(1);
  const auto [begin, end] = worker.share(tokens);
  with_float_type(args.x.dtype, worker, [&, begin = begin, end = end](auto tag) {
    using T = decltype(tag);
    auto* order = reinterpret_cast<int32_t*>(worker.scratch);
    auto* best = reinterpret_cast<T*>(worker.scratch + align_up(static_cast<size_t>(experts) * sizeof(int32_t)));
    for (int64_t t = begin; t < end; ++t) {
      const T* x = args.x.as<T>() + t * experts;
      top_of_row(args.x.dtype, x, experts, k, best, args.indices.as<int32_t>() + t * k, order);
      float lanes[16];
      store(lanes, load_n(best, 1));
      const F16 top = set1(lanes[0]);
      const F16 sum = args.normalize ? sum_of_powers(best, k, top) : sum_of_powers(x, experts, top);
      float* weights = args.weights.as<float>() + t * k;
      for (int64_t j = 0; j < k; j += 16) {
        store_up_to_16(weights + j, exp(load_up_to_16(best + j, k - j) - top) / sum, k - j);
      }
      for (int64_t j = 0; j < k; ++j) args.rows.as<int32_t>()[t * k + j] = static_cast<int32_t>(j * tokens + t);
    }
  });
}

// Columns that a thread takes at a time: a token alone is still work for all.
inline constexpr int64_t kUnpermuteColumns = 256;

// Columns [begin, end) of the weighted sum of k rows; false where a place is none of x.
template <typename T>
inline bool unpermute_columns(const TokenUnpermuteArgs& args, int64_t token, const float* probs, int64_t begin,
                              int64_t end, const Worker& worker) {
  const int64_t rows = args.x.dim(0), h = args.x.dim(1), k = args.probs.dim(1);
  const int32_t* places = args.places.as<int32_t>() + token * k;
  for (int64_t j = 0; j < k; ++j) {
    if (places[j] >= 0 && places[j] < rows) continue;
    worker.error->report("row_idx is no row of x", token * k + j, places[j], rows);
    return false;
  }
  for (int64_t i = begin; i < end; i += 16) {
    F16 sum = zero();
    for (int64_t j = 0; j < k; ++j) {
      sum = fma(set1(probs[j]), load_up_to_16(args.x.as<T>() + places[j] * h + i, end - i), sum);
    }
    store_up_to_16(args.out.as<T>() + token * h + i, sum, end - i);
  }
  return true;
}

template <typename P>
inline void probs_of_token(const P* probs, int64_t k, float* out) {
  for (int64_t j = 0; j < k; j += 16) store_up_to_16(out + j, load_up_to_16(probs + j, k - j), k - j);
}

inline void token_unpermute(const TokenUnpermuteArgs& args, const Worker& worker) {
  const int64_t h = args.out.dim(1), k = args.probs.dim(1);
  const int64_t parts = (h + kUnpermuteColumns - 1) / kUnpermuteColumns;
  const auto [begin, end] = worker.share(args.out.dim(0) * parts);
  auto* probs = reinterpret_cast<float*>(worker.scratch);
  with_float_type(args.out.dtype, worker, [&, begin = begin, end = end](auto tag) {
    using T = decltype(tag);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t token = i / parts, column = i % parts * kUnpermuteColumns;
      if (i == begin || column == 0) {
        with_float_type(args.probs.dtype, worker,
                        [&](auto type) { probs_of_token(args.probs.as<decltype(type)>() + token * k, k, probs); });
      }
      if (!unpermute_columns<T>(args, token, probs, column, std::min(column + kUnpermuteColumns, h), worker)) return;
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
