// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace atb_core::cpu::ATB_CPU_LEVEL {

inline F16 gelu_tanh(F16 x) {
  const F16 cube = x * x * x;
  const F16 inner = fma(cube, set1(0.044715F), x) * set1(0.797884561F);
  return set1(0.5F) * x * (set1(1.0F) + tanh(inner));
}

inline F16 gelu_erf(F16 x) { return set1(0.5F) * x * (set1(1.0F) + erf(x * set1(0.707106781F))); }

// Returns x * exp(0.851 (x - |x|)) / (1 + exp(-1.702 |x|)), which is x * sigmoid(1.702 x) without overflow.
inline F16 fast_gelu(F16 x) {
  const F16 a = abs(x);
  return x * exp(set1(0.851F) * (x - a)) / (set1(1.0F) + exp(set1(-1.702F) * a));
}

// Calls f with the function of one argument that `kind` names (swiglu has two and is not among them).
template <typename F>
inline void with_activation(ActivationKind kind, float scale, F f) {
  using K = ActivationKind;
  switch (kind) {
    case K::relu:  // the order of operands keeps a NaN
      return f([](F16 x) { return max(zero(), x); });
    case K::gelu_tanh:
      return f([](F16 x) { return gelu_tanh(x); });
    case K::gelu_erf:
      return f([](F16 x) { return gelu_erf(x); });
    case K::fast_gelu:
      return f([](F16 x) { return fast_gelu(x); });
    case K::swish:
      return f([s = set1(scale)](F16 x) { return x / (set1(1.0F) + exp(neg(s * x))); });
    case K::log:
      return f([](F16 x) { return log(x); });
    case K::sigmoid:
      return f([](F16 x) { return sigmoid(x); });
    case K::swiglu:
      return;
  }
}

template <typename T>
inline void swiglu(const T* gate, const T* up, T* out, int64_t n) {
  map(gate, up, out, n, [](F16 g, F16 u) { return silu_of<T>(g) * u; });
}

// The rows are cut too, so that one row (a decoding step) is shared by all threads.
template <typename T>
inline void swiglu(const ActivationArgs& args, const Worker& worker) {
  const int64_t n = args.out.dim(-1);
  if (n == 0) return;
  const int64_t rows = args.out.numel() / n;
  const int64_t pieces = (n + kGrain - 1) / kGrain;  // of a row
  const auto [begin, end] = worker.share(rows * pieces);
  for (int64_t piece = begin; piece < end;) {
    const int64_t row = piece / pieces;
    const int64_t next = std::min(end, (row + 1) * pieces);
    const int64_t from = (piece - row * pieces) * kGrain;
    const int64_t to = std::min(n, (next - row * pieces) * kGrain);
    const T* gate = args.x.as<T>() + row * 2 * n;
    swiglu(gate + from, gate + n + from, args.out.as<T>() + row * n + from, to - from);
    piece = next;
  }
}

inline void activation(const ActivationArgs& args, const Worker& worker) {
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    if (args.kind == ActivationKind::swiglu) return swiglu<T>(args, worker);
    const auto [begin, end] = worker.share(args.x.numel(), kGrain);
    const int64_t from = begin, count = end - begin;
    with_activation(args.kind, args.scale,
                    [&](auto function) { map(args.x.as<T>() + from, args.out.as<T>() + from, count, function); });
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
