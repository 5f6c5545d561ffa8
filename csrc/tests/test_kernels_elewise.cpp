// SPDX-License-Identifier: Apache-2.0
// Elementwise operations with broadcasting, reductions and casts.
#include "kernel_testing.h"

#include <algorithm>

namespace atb_core::test {
namespace {

using E = cpu::ElewiseKind;
using Shape = std::vector<int64_t>;

Shape broadcast_shape(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t i = 1; i <= out.size(); ++i) {
    const int64_t x = i <= a.size() ? a[a.size() - i] : 1, y = i <= b.size() ? b[b.size() - i] : 1;
    out[out.size() - i] = x == 1 ? y : x;
  }
  return out;
}

// The place in `shape` of element i of `out`.
int64_t source(int64_t i, const Shape& out, const Shape& shape) {
  int64_t at = 0, step = 1;
  for (size_t k = 1; k <= out.size(); ++k) {
    const int64_t index = i % out[out.size() - k];
    i /= out[out.size() - k];
    if (k > shape.size()) continue;
    const int64_t n = shape[shape.size() - k];
    at += (n == 1 ? 0 : index) * step;
    step *= n;
  }
  return at;
}

double calculated(E kind, double a, double b) {
  switch (kind) {
    case E::add:
      return a + b;
    case E::sub:
      return a - b;
    case E::mul:
      return a * b;
    case E::realdiv:
      return a / b;
    case E::less:
      return a < b;
    case E::greater:
      return a > b;
    case E::equal:
      return a == b;
    case E::logical_and:
      return a != 0 && b != 0;
    case E::logical_or:
      return a != 0 || b != 0;
    case E::logical_not:
      return a == 0;
    case E::muls:
      return a * 2.5;
    case E::cos:
      return std::cos(a);
    case E::sin:
      return std::sin(a);
    case E::tanh:
      return std::tanh(a);
    case E::neg:
      return -a;
  }
  return 0;
}

bool gives_bool(E kind) {
  return kind == E::less || kind == E::greater || kind == E::equal || kind == E::logical_and || kind == E::logical_or ||
         kind == E::logical_not;
}

const E kAll[] = {E::add,         E::sub,         E::mul,        E::realdiv, E::muls,    E::cos,   E::sin, E::neg,
                  E::logical_not, E::logical_and, E::logical_or, E::less,    E::greater, E::equal, E::tanh};
const DataType kTypes[] = {DataType::f32, DataType::f16, DataType::bf16, DataType::i8,
                           DataType::i32, DataType::i64, DataType::b8};

Array operand(DataType dtype, const Shape& shape, unsigned seed) {
  Array a = random_array(dtype, shape, seed, dtype == DataType::f32 ? 2.0 : 3.0);
  if (!is_float(dtype))
    a.fill([n = seed](int64_t i) mutable {
      return static_cast<double>((n = n * 1103515245 + 12345 + static_cast<unsigned>(i)) / 65536 % 3);
    });
  return a;
}

TEST(every_kind_with_every_dtype_and_broadcasting) {
  const std::pair<Shape, Shape> shapes[] = {
      {{3, 70}, {3, 70}},         {{3, 70}, {70}},        {{3, 70}, {3, 1}}, {{}, {5}}, {{}, {}},
      {{2, 1, 5, 1}, {3, 1, 33}}, {{4, 1, 6}, {4, 5, 1}}, {{1, 1}, {2, 300}}};
  for (const E kind : kAll) {
    for (const DataType dtype : kTypes) {
      if (!cpu::elewise_supports(kind, dtype)) continue;
      for (const auto& [sa, sb] : shapes) {
        const Shape so = cpu::is_unary(kind) ? sa : broadcast_shape(sa, sb);
        const Array a = operand(dtype, sa, 3), b = operand(dtype, sb, 4);
        Array out(gives_bool(kind) ? DataType::i8 : dtype, so);
        const cpu::ElewiseArgs args{a, cpu::is_unary(kind) ? TensorView{} : b.view(), out, kind, 2.5F};
        run_everywhere(&KernelTable::elewise, args, {&out});
        check_close(
            out,
            [&, sa = sa, sb = sb](int64_t i) {
              return calculated(kind, a.at(source(i, so, sa)), cpu::is_unary(kind) ? 0 : b.at(source(i, so, sb)));
            },
            is_float(dtype) ? 4 : 0);
      }
    }
  }
}

TEST(unsupported_kinds_are_errors) {
  Array x(DataType::i32, {4});
  CHECK(run(Isa::portable, 1, &KernelTable::elewise, cpu::ElewiseArgs{x, x, x, E::realdiv, 0}).has_value());
  Array f(DataType::f32, {4});
  CHECK(run(Isa::portable, 1, &KernelTable::elewise, cpu::ElewiseArgs{f, f, f, E::logical_and, 0}).has_value());
}

TEST(comparisons_with_nan_are_false) {
  Array a(DataType::f32, {2}), out(DataType::i8, {2});
  a.fill([](int64_t) { return NAN; });
  for (const E kind : {E::less, E::greater, E::equal}) {
    run_everywhere(&KernelTable::elewise, cpu::ElewiseArgs{a, a, out, kind, 0}, {&out});
    CHECK(out.at(0) == 0 && out.at(1) == 0);
  }
}

TEST(integer_sums_wrap_around) {
  Array a(DataType::i64, {1}), b(DataType::i64, {1}), out(DataType::i64, {1});
  a.view().as<int64_t>()[0] = std::numeric_limits<int64_t>::max();
  b.view().as<int64_t>()[0] = 1;
  run_everywhere(&KernelTable::elewise, cpu::ElewiseArgs{a, b, out, E::add, 0}, {&out});
  CHECK(out.view().as<int64_t>()[0] == std::numeric_limits<int64_t>::min());
}

// The reduced value of output element i, in double.
double reduced(const Array& x, const Shape& shape, uint32_t axes, cpu::ReduceKind kind, int64_t i) {
  Shape kept = shape;
  for (size_t k = 0; k < shape.size(); ++k)
    if ((axes >> k) & 1U) kept[k] = 1;
  double total = kind == cpu::ReduceKind::sum ? 0 : kind == cpu::ReduceKind::max ? -HUGE_VAL : HUGE_VAL;
  for (int64_t j = 0; j < x.numel(); ++j) {
    if (source(j, shape, kept) != i) continue;
    total = kind == cpu::ReduceKind::sum   ? total + x.at(j)
            : kind == cpu::ReduceKind::max ? std::max(total, x.at(j))
                                           : std::min(total, x.at(j));
  }
  return total;
}

TEST(reductions_over_any_axes) {
  using K = cpu::ReduceKind;
  const Shape shape = {3, 5, 2, 37};
  for (const DataType dtype : {DataType::f32, DataType::f16, DataType::bf16, DataType::i32, DataType::i64}) {
    const Array x = operand(dtype, shape, 6);
    for (uint32_t axes = 0; axes < 16; ++axes) {
      int64_t n = 1;
      for (size_t k = 0; k < shape.size(); ++k) n *= (axes >> k) & 1U ? 1 : shape[k];
      for (const K kind : {K::sum, K::max, K::min}) {
        Array out(dtype, {n});
        run_everywhere(&KernelTable::reduce, cpu::ReduceArgs{x, out, kind, axes}, {&out});
        check_close(out, [&](int64_t i) { return reduced(x, shape, axes, kind, i); }, 40, 20);
      }
    }
  }
}

TEST(maximum_keeps_nan) {
  for (const uint32_t axes : {1U, 2U}) {
    Array x(DataType::f32, {40, 40}), out(DataType::f32, {40});
    x.fill([](int64_t i) { return i == 17 * 40 + 21 ? NAN : static_cast<double>(i % 7); });
    run_everywhere(&KernelTable::reduce, cpu::ReduceArgs{x, out, cpu::ReduceKind::max, axes}, {&out});
    for (int64_t i = 0; i < 40; ++i) CHECK(std::isnan(out.at(i)) == (i == (axes == 1 ? 21 : 17)));
  }
}

TEST(reductions_of_nothing) {
  Array x(DataType::f32, {3, 0}), out(DataType::f32, {3});
  run_everywhere(&KernelTable::reduce, cpu::ReduceArgs{x, out, cpu::ReduceKind::sum, 2}, {&out});
  for (int64_t i = 0; i < 3; ++i) CHECK(out.at(i) == 0.0);
  run_everywhere(&KernelTable::reduce, cpu::ReduceArgs{x, out, cpu::ReduceKind::max, 2}, {&out});
  CHECK(out.at(0) == -HUGE_VAL);
}

TEST(casts_between_all_dtypes) {
  for (const DataType from : kTypes) {
    Array x(from, {100});
    x.fill([&](int64_t i) {
      return from == DataType::b8 ? static_cast<double>(i % 2)
                                  : static_cast<double>(i - 50) * (is_float(from) ? 0.75 : 1.0);
    });
    for (const DataType to : kTypes) {
      Array out(to, {100});
      run_everywhere(&KernelTable::cast, cpu::CastArgs{x, out}, {&out});
      check_close(
          out,
          [&](int64_t i) {
            if (to == DataType::b8) return static_cast<double>(x.at(i) != 0);
            return is_float(to) ? x.at(i) : std::trunc(x.at(i));
          },
          0);
    }
  }
}

TEST(casts_saturate_and_wrap) {
  Array x(DataType::f32, {5}), i8(DataType::i8, {5}), i32(DataType::i32, {5}), i64(DataType::i64, {5});
  const double values[] = {1e30, -1e30, NAN, 127.9, -128.9};
  x.fill([&](int64_t i) { return values[i]; });
  run_everywhere(&KernelTable::cast, cpu::CastArgs{x, i8}, {&i8});
  run_everywhere(&KernelTable::cast, cpu::CastArgs{x, i32}, {&i32});
  run_everywhere(&KernelTable::cast, cpu::CastArgs{x, i64}, {&i64});
  CHECK(i8.at(0) == 127 && i8.at(1) == -128 && i8.at(2) == 0 && i8.at(3) == 127 && i8.at(4) == -128);
  CHECK(i32.at(0) == 2147483647.0 && i32.at(1) == -2147483648.0 && i32.at(4) == -128);
  CHECK(i64.view().as<int64_t>()[0] == std::numeric_limits<int64_t>::max());
  i64.view().as<int64_t>()[0] = (int64_t{5} << 32) + 3;
  run_everywhere(&KernelTable::cast, cpu::CastArgs{i64, i32}, {&i32});
  CHECK(i32.at(0) == 3);
}

}  // namespace
}  // namespace atb_core::test

TEST_MAIN()
