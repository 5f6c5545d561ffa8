// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <limits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Some of a tensor's dimensions with the distances between neighbours, innermost first.
struct StridedDims {
  int rank = 0;
  int64_t size[kMaxRank] = {}, stride[kMaxRank] = {};

  void add(int64_t n, int64_t step) {
    size[rank] = n;
    stride[rank++] = step;
  }
  int64_t count(int from = 0) const {
    int64_t n = 1;
    for (int i = from; i < rank; ++i) n *= size[i];
    return n;
  }
  // The place of the index-th element when dimensions below `from` are held at zero.
  int64_t place(int64_t index, int from = 0) const {
    int64_t at = 0;
    for (int i = from; i < rank; ++i) {
      at += index % size[i] * stride[i];
      index /= size[i];
    }
    return at;
  }
};

// The dimensions that stay and those that are reduced; neighbours of the same sort are one dimension.
struct ReduceDims {
  StridedDims kept, reduced;
  bool inner_reduced = true;  // the innermost dimension of size above one is reduced (or there is none)

  explicit ReduceDims(const ReduceArgs& args) {
    int64_t stride = 1;
    int previous = -1;  // 1: reduced, 0: kept
    for (int axis = args.x.rank - 1; axis >= 0; --axis) {
      const int64_t n = args.x.shape[axis];
      if (n == 1) continue;
      const int sort = static_cast<int>((args.axes >> axis) & 1U);
      if (previous < 0) inner_reduced = sort == 1;
      StridedDims& dims = sort == 1 ? reduced : kept;
      if (sort == previous) {
        dims.size[dims.rank - 1] *= n;
      } else {
        dims.add(n, stride);
      }
      previous = sort;
      stride *= n;
    }
  }
};

struct SumOfLanes {
  static F16 start() { return zero(); }
  static F16 join(F16 a, F16 b) { return a + b; }
};
// A NaN on either side stays.
struct MaxOfLanes {
  static F16 start() { return set1(-HUGE_VALF); }
  static F16 join(F16 a, F16 b) { return select(is_nan(a), a, max(a, b)); }
};
struct MinOfLanes {
  static F16 start() { return set1(HUGE_VALF); }
  static F16 join(F16 a, F16 b) { return select(is_nan(a), a, min(a, b)); }
};

// The tree over lanes of horizontal_sum, for any operation.
template <typename Op>
inline F16 join_across(F16 v) {
  float lanes[32] = {};
  for (int half = 8; half > 0; half /= 2) {
    store(lanes, v);
    v = Op::join(load(lanes), load(lanes + half));
  }
  return v;
}

// The innermost dimension is reduced: lane j takes elements j, j+16, ... of each run, runs in ascending order.
template <typename T, typename Op>
inline void reduce_runs(const ReduceArgs& args, const ReduceDims& dims, const Worker& worker) {
  const int64_t run = dims.reduced.rank > 0 ? dims.reduced.size[0] : 1;
  const int64_t runs = dims.reduced.count(1);
  const auto [begin, end] = worker.share(args.out.numel(), kGrain);
  for (int64_t i = begin; i < end; ++i) {
    const T* base = args.x.as<T>() + dims.kept.place(i);
    F16 total = Op::start();
    for (int64_t r = 0; r < runs; ++r) {
      const T* x = base + dims.reduced.place(r, 1);
      for (int64_t j = 0; j < run; j += 16) {
        const int64_t n = run - j;
        const F16 v = load_up_to_16(x + j, n);
        total = Op::join(total, n >= 16 ? v : select(first(static_cast<int>(n)), v, Op::start()));
      }
    }
    store_n(args.out.as<T>() + i, join_across<Op>(total), 1);
  }
}

// The innermost dimension stays: a lane is an output, its elements are joined in ascending order.
template <typename T, typename Op>
inline void reduce_columns(const ReduceArgs& args, const ReduceDims& dims, const Worker& worker) {
  const int64_t width = dims.kept.size[0];
  const int64_t depth = dims.reduced.count();
  const auto [begin, end] = worker.share(args.out.numel(), kGrain);
  for (int64_t i = begin; i < end;) {
    const int64_t column = i % width;
    const int64_t n = std::min<int64_t>({16, width - column, end - i});
    const T* base = args.x.as<T>() + dims.kept.place(i);
    F16 total = Op::start();
    for (int64_t r = 0; r < depth; ++r) total = Op::join(total, load_up_to_16(base + dims.reduced.place(r), n));
    store_up_to_16(args.out.as<T>() + i, total, n);
    i += n;
  }
}

template <typename T, typename Op>
inline void reduce_float(const ReduceArgs& args, const Worker& worker) {
  const ReduceDims dims(args);
  if (dims.inner_reduced) {
    reduce_runs<T, Op>(args, dims, worker);
  } else {
    reduce_columns<T, Op>(args, dims, worker);
  }
}

template <typename T>
inline T join_integers(ReduceKind kind, T a, T b) {
  if (kind == ReduceKind::max) return a > b ? a : b;
  if (kind == ReduceKind::min) return a < b ? a : b;
  return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}

template <typename T>
inline void reduce_integer(const ReduceArgs& args, const Worker& worker) {
  const ReduceDims dims(args);
  const int64_t depth = dims.reduced.count();
  const T start = args.kind == ReduceKind::max   ? std::numeric_limits<T>::min()
                  : args.kind == ReduceKind::min ? std::numeric_limits<T>::max()
                                                 : T{0};
  const auto [begin, end] = worker.share(args.out.numel(), kGrain);
  for (int64_t i = begin; i < end; ++i) {
    const T* base = args.x.as<T>() + dims.kept.place(i);
    T total = start;
    for (int64_t r = 0; r < depth; ++r) total = join_integers(args.kind, total, base[dims.reduced.place(r)]);
    args.out.as<T>()[i] = total;
  }
}

inline void reduce(const ReduceArgs& args, const Worker& worker) {
  if (args.x.dtype == DataType::i32) return reduce_integer<int32_t>(args, worker);
  if (args.x.dtype == DataType::i64) return reduce_integer<int64_t>(args, worker);
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    switch (args.kind) {
      case ReduceKind::sum:
        return reduce_float<T, SumOfLanes>(args, worker);
      case ReduceKind::max:
        return reduce_float<T, MaxOfLanes>(args, worker);
      case ReduceKind::min:
        return reduce_float<T, MinOfLanes>(args, worker);
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
