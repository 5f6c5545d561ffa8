// SPDX-License-Identifier: Apache-2.0
// Norms, rope, activations, softmax and the cache against double, on every level and with several thread counts.
#include "kernel_testing.h"

#include <algorithm>

namespace atb_core::test {
namespace {

double rms(const Array& x, int64_t row, int64_t n, double epsilon) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += x.at(row * n + i) * x.at(row * n + i);
  return std::sqrt(squares / static_cast<double>(n) + epsilon);
}

TEST(rms_norm_matches_double) {
  for (const DataType dtype : kFloats) {
    for (const int64_t n : {1, 7, 16, 33, 896}) {
      const Array x = random_array(dtype, {5, n}, 1), w = random_array(dtype, {n}, 2);
      Array out(dtype, {5, n});
      run_everywhere(&KernelTable::rms_norm, cpu::RmsNormArgs{x, w, out, 1e-6F}, {&out});
      check_close(out, [&](int64_t i) { return x.at(i) / rms(x, i / n, n, 1e-6) * w.at(i % n); }, 8);
    }
  }
}

TEST(rms_norm_in_place) {
  Array x = random_array(DataType::bf16, {4, 100}, 1), out(DataType::bf16, {4, 100});
  const Array w = random_array(DataType::bf16, {100}, 2);
  run_everywhere(&KernelTable::rms_norm, cpu::RmsNormArgs{x, w, out, 1e-6F}, {&out});
  run_everywhere(&KernelTable::rms_norm, cpu::RmsNormArgs{x, w, x, 1e-6F}, {&x});
  CHECK(x.same_bits(out));
}

TEST(add_rms_norm_rounds_the_sum_first) {
  for (const DataType dtype : kFloats) {
    const int64_t n = 90;
    const Array a = random_array(dtype, {3, 2, n}, 1), b = random_array(dtype, {3, 2, n}, 2),
                w = random_array(dtype, {n}, 3);
    Array out(dtype, {3, 2, n}), sum(dtype, {3, 2, n}), rstd(DataType::f32, {3, 2, 1}), alone(dtype, {3, 2, n});
    run_everywhere(&KernelTable::add_rms_norm, cpu::AddRmsNormArgs{a, b, w, out, rstd, sum, 1e-5F},
                   {&out, &sum, &rstd});
    check_close(sum, [&](int64_t i) { return a.at(i) + b.at(i); }, 1);
    check_close(rstd, [&](int64_t i) { return 1 / rms(sum, i, n, 1e-5); }, 8);
    run_everywhere(&KernelTable::rms_norm, cpu::RmsNormArgs{sum, w, alone, 1e-5F}, {&alone});
    CHECK(out.same_bits(alone));
    run_everywhere(&KernelTable::add_rms_norm, cpu::AddRmsNormArgs{a, b, w, alone, {}, sum, 1e-5F}, {&alone, &sum});
    CHECK(out.same_bits(alone));
  }
}

// General rule: each head has coefficient/2 groups, in each of which the halves are rotated.
double turned(const Array& x, const Array& cos, const Array& sin, int64_t i, int64_t width, int64_t d, int64_t half) {
  const int64_t token = i / width, c = i % d;
  const bool is_first = c % (2 * half) < half;
  const double other = is_first ? -x.at(i + half) : x.at(i - half);
  return x.at(i) * cos.at(token * d + c) + other * sin.at(token * d + c);
}

TEST(rope_matches_double) {
  for (const DataType dtype : kFloats) {
    for (const auto& [d, coefficient] :
         {std::pair<int64_t, int64_t>{64, 2}, {64, 4}, {64, 64}, {20, 2}, {20, 20}, {36, 4}, {128, 2}}) {
      for (const DataType table : {dtype, DataType::f32}) {
        const Array q = random_array(dtype, {5, 3 * d}, 1), k = random_array(dtype, {5, d}, 2);
        const Array cos = random_array(table, {5, d}, 3), sin = random_array(table, {5, d}, 4);
        Array q_out(dtype, {5, 3 * d}), k_out(dtype, {5, d});
        run_everywhere(&KernelTable::rope, cpu::RopeArgs{q, k, cos, sin, q_out, k_out, coefficient}, {&q_out, &k_out});
        const int64_t half = d / coefficient;
        check_close(q_out, [&, n = d](int64_t i) { return turned(q, cos, sin, i, 3 * n, n, half); }, 2, 4);
        check_close(k_out, [&, n = d](int64_t i) { return turned(k, cos, sin, i, n, n, half); }, 2, 4);
        Array q_in_place = q, k_in_place = k;
        run_everywhere(&KernelTable::rope,
                       cpu::RopeArgs{q_in_place, k_in_place, cos, sin, q_in_place, k_in_place, coefficient},
                       {&q_in_place, &k_in_place});
        CHECK(q_in_place.same_bits(q_out) && k_in_place.same_bits(k_out));
      }
    }
  }
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double activated(cpu::ActivationKind kind, double scale, double x) {
  using K = cpu::ActivationKind;
  switch (kind) {
    case K::relu:
      return std::max(0.0, x);
    case K::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case K::gelu_erf:
      return 0.5 * x * (1 + std::erf(x * 0.7071067811865476));
    case K::fast_gelu:
      return x * sigmoid(1.702 * x);
    case K::swish:
      return x * sigmoid(scale * x);
    case K::log:
      return std::log(x);
    case K::sigmoid:
      return sigmoid(x);
    case K::swiglu:
      return x * sigmoid(x);
  }
  return 0;
}

TEST(activations_match_double) {
  using K = cpu::ActivationKind;
  for (const DataType dtype : kFloats) {
    for (const K kind : {K::relu, K::gelu_tanh, K::gelu_erf, K::fast_gelu, K::swish, K::log, K::sigmoid}) {
      for (const int64_t n : {1, 15, 16, 200}) {
        Array x = random_array(dtype, {3, n}, 5, 2.0), out(dtype, {3, n});
        if (kind == K::log) x.fill([&, x0 = x](int64_t i) { return std::fabs(x0.at(i)) + 0.01; });
        run_everywhere(&KernelTable::activation, cpu::ActivationArgs{x, out, kind, 1.5F}, {&out});
        check_close(out, [&](int64_t i) { return activated(kind, 1.5, x.at(i)); }, 8, 1);
      }
    }
  }
}

TEST(swiglu_multiplies_the_halves) {
  for (const DataType dtype : kFloats) {
    for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{1, 300}, {7, 1}, {3, 64}, {5, 130}}) {
      const Array x = random_array(dtype, {rows, 2 * n}, 5, 2.0);
      Array out(dtype, {rows, n});
      run_everywhere(&KernelTable::activation, cpu::ActivationArgs{x, out, cpu::ActivationKind::swiglu, 1}, {&out});
      check_close(
          out,
          [&, n = n](int64_t i) {
            const int64_t at = i / n * 2 * n + i % n;
            return activated(cpu::ActivationKind::swiglu, 1, x.at(at)) * x.at(at + n);
          },
          8);
    }
  }
}

TEST(relu_keeps_nan) {
  Array x(DataType::f32, {3}), out(DataType::f32, {3});
  x.fill([](int64_t i) { return i == 0 ? NAN : i == 1 ? -1.0 : 2.0; });
  run_everywhere(&KernelTable::activation, cpu::ActivationArgs{x, out, cpu::ActivationKind::relu, 1}, {&out});
  CHECK(std::isnan(out.at(0)) && out.at(1) == 0.0 && out.at(2) == 2.0);
}

TEST(softmax_matches_double) {
  for (const DataType dtype : kFloats) {
    for (const int first_axis : {1, 2}) {
      const Array x = random_array(dtype, {3, 5, 37}, 5, 3.0);
      Array out(dtype, {3, 5, 37});
      run_everywhere(&KernelTable::softmax, cpu::SoftmaxArgs{x, out, first_axis}, {&out});
      const int64_t n = first_axis == 1 ? 5 * 37 : 37;
      check_close(
          out,
          [&](int64_t i) {
            double top = -HUGE_VAL, sum = 0;
            for (int64_t j = 0; j < n; ++j) top = std::max(top, x.at(i / n * n + j));
            for (int64_t j = 0; j < n; ++j) sum += std::exp(x.at(i / n * n + j) - top);
            return std::exp(x.at(i) - top) / sum;
          },
          30);
    }
  }
}

TEST(cache_rows_go_to_their_slots) {
  for (const DataType dtype : {DataType::f32, DataType::bf16}) {
    const Array k = random_array(dtype, {5, 2, 20}, 1), v = random_array(dtype, {5, 2, 36}, 2);
    Array k_cache = random_array(dtype, {3, 4, 2, 20}, 3), v_cache = random_array(dtype, {3, 4, 2, 36}, 4);
    const Array k_before = k_cache;
    const Array slots = int_array({5}, {11, -1, 0, 7, 0});
    run_everywhere(&KernelTable::reshape_and_cache, cpu::ReshapeAndCacheArgs{k, v, k_cache, v_cache, slots},
                   {&k_cache, &v_cache});
    CHECK(k_cache.same_bits(11 * 40, k, 0, 40) && v_cache.same_bits(11 * 72, v, 0, 72));
    CHECK(k_cache.same_bits(7 * 40, k, 3 * 40, 40));
    CHECK(k_cache.same_bits(0, k, 4 * 40, 40));  // the later of two tokens with slot 0
    CHECK(k_cache.same_bits(40, k_before, 40, 6 * 40));
    for (const int slot : {12, 1 << 30}) {
      const Array bad = int_array({5}, {0, 1, slot, 3, 4});
      const Array before = k_cache;
      for (const Isa isa : cpu::supported_isas()) {
        const auto error =
            run(isa, 2, &KernelTable::reshape_and_cache, cpu::ReshapeAndCacheArgs{k, v, k_cache, v_cache, bad});
        CHECK(error.has_value() && error->position == 2 && error->value == slot && error->limit == 12);
      }
      CHECK(k_cache.same_bits(before));
    }
  }
}

// Scales within and beyond those whose quotients are found by multiplications.
TEST(rows_become_integers_as_by_division) {
  const int64_t n = 1000;
  for (const DataType dtype : kFloats) {
    for (const double size : {1.0, 3e-4, 1e-25, 1e35}) {
      Array x = random_array(dtype, {3, n}, 1), out(DataType::i8, {3, n}), scale(DataType::f32, {3});
      for (int64_t i = 0; i < x.numel(); ++i) x.set(i, dtype == DataType::f16 ? x.at(i) : x.at(i) * size);
      x.set(2 * n + 990, std::nan(""));
      run_everywhere(&KernelTable::dynamic_quant, cpu::DynamicQuantArgs{x, out, scale}, {&out, &scale});
      for (int64_t i = 0; i < 2 * n; ++i) {
        float largest = 0;
        for (int64_t j = 0; j < n; ++j) largest = std::max(largest, std::fabs(static_cast<float>(x.at(i / n * n + j))));
        CHECK(scale.at(i / n) == largest / 127);
        CHECK(out.at(i) == std::nearbyint(static_cast<float>(x.at(i)) / (largest / 127)));
      }
      CHECK(std::isnan(scale.at(2)) && out.at(2 * n) == 0);
    }
  }
}

TEST(integers_are_refused_where_floats_are_needed) {
  Array x(DataType::i32, {4}), out(DataType::i32, {4});
  CHECK(run(Isa::portable, 1, &KernelTable::activation, cpu::ActivationArgs{x, out, cpu::ActivationKind::relu, 1})
            .has_value());
}

}  // namespace
}  // namespace atb_core::test

TEST_MAIN()
