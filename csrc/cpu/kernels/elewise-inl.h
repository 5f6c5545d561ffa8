// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// The output's dimensions with numpy broadcasting: per dimension the step of each operand, 0 where it is repeated.
// Neighbouring dimensions are merged where both operands allow it, so that the innermost one is long.
struct BroadcastDims {
  int rank = 0;
  int64_t size[kMaxRank] = {}, a_step[kMaxRank] = {}, b_step[kMaxRank] = {};

  BroadcastDims(const TensorView& a, const TensorView& b, const TensorView& out) {
    int64_t a_next = 1, b_next = 1;
    for (int i = 1; i <= out.rank; ++i) {  // from the last dimension; rank 0 here is the innermost
      const int64_t n = out.dim(-i);
      const int64_t a_size = i <= a.rank ? a.dim(-i) : 1, b_size = i <= b.rank ? b.dim(-i) : 1;
      const int64_t sa = a_size == 1 ? 0 : a_next, sb = b_size == 1 ? 0 : b_next;
      a_next *= a_size;
      b_next *= b_size;
      if (n == 1) continue;
      const int last = rank - 1;
      if (rank > 0 && sa == a_step[last] * size[last] && sb == b_step[last] * size[last]) {
        size[last] *= n;
        continue;
      }
      size[rank] = n;
      a_step[rank] = sa;
      b_step[rank] = sb;
      ++rank;
    }
    if (rank == 0) size[rank++] = 1;
  }
};

// Calls f(place in out, place in a, place in b, count) for runs along the innermost dimension that together are
// this thread's share of the output.
template <typename F>
inline void for_each_run(const BroadcastDims& dims, int64_t numel, const Worker& worker, F f) {
  const auto [begin, end] = worker.share(numel, kGrain);
  for (int64_t at = begin; at < end;) {
    const int64_t inner = at % dims.size[0];
    const int64_t count = std::min(end - at, dims.size[0] - inner);
    int64_t a = inner * dims.a_step[0], b = inner * dims.b_step[0];
    int64_t rest = at / dims.size[0];
    for (int i = 1; i < dims.rank; ++i) {
      const int64_t index = rest % dims.size[i];
      rest /= dims.size[i];
      a += index * dims.a_step[i];
      b += index * dims.b_step[i];
    }
    f(at, a, b, count);
    at += count;
  }
}

template <typename T>
inline F16 broadcast(const T* p) {
  float lanes[16];
  store(lanes, load_n(p, 1));
  return set1(lanes[0]);
}

// f(i, n, a lanes, b lanes) for each group of up to sixteen elements of a run.
template <typename T, typename F>
inline void for_each_lanes(const T* a, int64_t a_step, const T* b, int64_t b_step, int64_t count, F f) {
  const F16 a_all = broadcast(a), b_all = broadcast(b);
  for (int64_t i = 0; i < count; i += 16) {
    const int64_t n = count - i;
    f(i, n, a_step == 0 ? a_all : load_up_to_16(a + i, n), b_step == 0 ? b_all : load_up_to_16(b + i, n));
  }
}

template <typename T, typename Op>
inline void binary(const ElewiseArgs& args, const Worker& worker, Op op) {
  const BroadcastDims dims(args.a, args.b, args.out);
  const T *a = args.a.as<T>(), *b = args.b.as<T>();
  for_each_run(dims, args.out.numel(), worker, [&](int64_t at, int64_t ia, int64_t ib, int64_t count) {
    T* out = args.out.as<T>() + at;
    for_each_lanes(a + ia, dims.a_step[0], b + ib, dims.b_step[0], count,
                   [&](int64_t i, int64_t n, F16 x, F16 y) { store_up_to_16(out + i, op(x, y), n); });
  });
}

template <typename T, typename Op>
inline void compare(const ElewiseArgs& args, const Worker& worker, Op op) {
  const BroadcastDims dims(args.a, args.b, args.out);
  const T *a = args.a.as<T>(), *b = args.b.as<T>();
  for_each_run(dims, args.out.numel(), worker, [&](int64_t at, int64_t ia, int64_t ib, int64_t count) {
    int8_t* out = args.out.as<int8_t>() + at;
    for_each_lanes(a + ia, dims.a_step[0], b + ib, dims.b_step[0], count, [&](int64_t i, int64_t n, F16 x, F16 y) {
      const uint32_t bits = to_bits(op(x, y));
      for (int64_t j = 0; j < std::min<int64_t>(n, 16); ++j) out[i + j] = static_cast<int8_t>((bits >> j) & 1U);
    });
  });
}

template <typename T, typename Op>
inline void unary(const ElewiseArgs& args, const Worker& worker, Op op) {
  const auto [begin, end] = worker.share(args.out.numel(), kGrain);
  map(args.a.as<T>() + begin, args.out.as<T>() + begin, end - begin, op);
}

template <typename T>
inline void elewise_float(const ElewiseArgs& args, const Worker& worker) {
  using K = ElewiseKind;
  switch (args.kind) {
    case K::add:
      return binary<T>(args, worker, [](F16 a, F16 b) { return a + b; });
    case K::sub:
      return binary<T>(args, worker, [](F16 a, F16 b) { return a - b; });
    case K::mul:
      return binary<T>(args, worker, [](F16 a, F16 b) { return a * b; });
    case K::realdiv:
      return binary<T>(args, worker, [](F16 a, F16 b) { return a / b; });
    case K::less:
      return compare<T>(args, worker, [](F16 a, F16 b) { return lt(a, b); });
    case K::greater:
      return compare<T>(args, worker, [](F16 a, F16 b) { return gt(a, b); });
    case K::equal:
      return compare<T>(args, worker, [](F16 a, F16 b) { return eq(a, b); });
    case K::muls:
      return unary<T>(args, worker, [s = set1(args.var_attr)](F16 a) { return a * s; });
    case K::cos:
      return unary<T>(args, worker, [](F16 a) { return cos(a); });
    case K::sin:
      return unary<T>(args, worker, [](F16 a) { return sin(a); });
    case K::tanh:
      return unary<T>(args, worker, [](F16 a) { return tanh(a); });
    case K::neg:
      return unary<T>(args, worker, [](F16 a) { return neg(a); });
    case K::logical_not:
    case K::logical_and:
    case K::logical_or:
      return;  // elewise_supports says no, and elewise has asked it
  }
}

template <typename T, typename Out, typename Op>
inline void binary_scalar(const ElewiseArgs& args, const Worker& worker, Op op) {
  const TensorView& second = is_unary(args.kind) ? args.a : args.b;
  const BroadcastDims dims(args.a, second, args.out);
  for_each_run(dims, args.out.numel(), worker, [&](int64_t at, int64_t ia, int64_t ib, int64_t count) {
    const T *a = args.a.as<T>() + ia, *b = second.as<T>() + ib;
    Out* out = args.out.as<Out>() + at;
    for (int64_t i = 0; i < count; ++i) out[i] = op(a[i * dims.a_step[0]], b[i * dims.b_step[0]]);
  });
}

// Integer arithmetic wraps around.
template <typename T>
inline void elewise_integer(const ElewiseArgs& args, const Worker& worker) {
  using K = ElewiseKind;
  using U = std::make_unsigned_t<T>;
  const auto u = [](T x) { return static_cast<U>(x); };
  switch (args.kind) {
    case K::add:
      return binary_scalar<T, T>(args, worker, [u](T a, T b) { return static_cast<T>(u(a) + u(b)); });
    case K::sub:
      return binary_scalar<T, T>(args, worker, [u](T a, T b) { return static_cast<T>(u(a) - u(b)); });
    case K::mul:
      return binary_scalar<T, T>(args, worker, [u](T a, T b) { return static_cast<T>(u(a) * u(b)); });
    case K::neg:
      return binary_scalar<T, T>(args, worker, [u](T a, T) { return static_cast<T>(U{0} - u(a)); });
    case K::less:
      return binary_scalar<T, int8_t>(args, worker, [](T a, T b) { return static_cast<int8_t>(a < b); });
    case K::greater:
      return binary_scalar<T, int8_t>(args, worker, [](T a, T b) { return static_cast<int8_t>(a > b); });
    case K::equal:
      return binary_scalar<T, int8_t>(args, worker, [](T a, T b) { return static_cast<int8_t>(a == b); });
    default:
      return;  // elewise_supports says no
  }
}

inline void elewise_bytes(const ElewiseArgs& args, const Worker& worker) {
  using K = ElewiseKind;
  const auto run = [&](auto op) { binary_scalar<int8_t, int8_t>(args, worker, op); };
  switch (args.kind) {
    case K::logical_not:
      return run([](int8_t a, int8_t) { return static_cast<int8_t>(a == 0); });
    case K::logical_and:
      return run([](int8_t a, int8_t b) { return static_cast<int8_t>(a != 0 && b != 0); });
    case K::logical_or:
      return run([](int8_t a, int8_t b) { return static_cast<int8_t>(a != 0 || b != 0); });
    case K::equal:
      return run([](int8_t a, int8_t b) { return static_cast<int8_t>(a == b); });
    default:
      return;  // elewise_supports says no
  }
}

inline void elewise(const ElewiseArgs& args, const Worker& worker) {
  const DataType dtype = args.a.dtype;
  if (!elewise_supports(args.kind, dtype)) {
    return worker.error->report("elewise does not have this kind (position) for this dtype (value)",
                                static_cast<int64_t>(args.kind), static_cast<int64_t>(dtype), 0);
  }
  if (args.out.numel() == 0) return;
  switch (dtype) {
    case DataType::i32:
      return elewise_integer<int32_t>(args, worker);
    case DataType::i64:
      return elewise_integer<int64_t>(args, worker);
    case DataType::i8:
    case DataType::b8:
      return elewise_bytes(args, worker);
    default:
      with_float_type(dtype, worker, [&](auto tag) { elewise_float<decltype(tag)>(args, worker); });
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
