// SPDX-License-Identifier: Apache-2.0
// The functions on F16: their error against double, and that all levels agree.
#include "kernel_testing.h"

#include <bit>

// clang-format off
#include "cpu/kernels/math-inl.h"
// clang-format on

namespace atb_core::test {
namespace {

using plain::F16;

// The float32 unit in the last place of x (of the smallest normal number, below it).
double ulp(double x) { return std::ldexp(1.0, std::max(-126, std::ilogb(x)) - 23); }

// The largest error in ulp over [low, high]: a fine grid and random floats, where the result is a normal number.
template <typename F>
double worst(F function, double (*exact)(double), float low, float high) {
  const cpu::FlushDenormals flush;
  std::mt19937 generator(7);
  std::uniform_real_distribution<float> uniform(low, high);
  double largest = 0;
  constexpr int kGroups = 20000;
  for (int group = 0; group < kGroups; ++group) {
    F16 x;
    for (int i = 0; i < 16; ++i) {
      const float step = static_cast<float>(group * 16 + i) / (16.0F * kGroups);
      x.v[i] = i % 2 == 0 ? low + (high - low) * step : uniform(generator);
    }
    const F16 y = function(x);
    for (int i = 0; i < 16; ++i) {
      const double e = exact(x.v[i]);
      if (std::fabs(e) < 0x1p-126 || std::fabs(e) > 0x1.fffffep127) continue;
      largest = std::max(largest, std::fabs(y.v[i] - e) / ulp(e));
    }
  }
  return largest;
}

template <typename F>
void check_error(const char* what, F function, double (*exact)(double), float low, float high, double bound) {
  const double error = worst(function, exact, low, high);
  std::printf("     %-8s [%g, %g]: %.2f ulp\n", what, low, high, error);
  if (!(error <= bound)) report(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(error) + " ulp");
}

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double exact_silu(double x) { return x / (1 + std::exp(-x)); }

TEST(errors_are_as_stated) {
  check_error("exp", [](F16 x) { return plain::exp(x); }, [](double x) { return std::exp(x); }, -87.3F, 88.7F, 1.1);
  check_error("exp", [](F16 x) { return plain::exp(x); }, [](double x) { return std::exp(x); }, -1.0F, 1.0F, 1.1);
  check_error("sigmoid", [](F16 x) { return plain::sigmoid(x); }, exact_sigmoid, -80.0F, 20.0F, 2.5);
  check_error("silu", [](F16 x) { return plain::silu(x); }, exact_silu, -80.0F, 20.0F, 2.5);
  for (const float range : {0.01F, 1.0F, 12.0F})
    check_error("tanh", [](F16 x) { return plain::tanh(x); }, [](double x) { return std::tanh(x); }, -range, range, 2);
  for (const float range : {0.01F, 1.5F, 6.0F})
    check_error("erf", [](F16 x) { return plain::erf(x); }, [](double x) { return std::erf(x); }, -range, range, 2);
  // Half a unit of bfloat16 and a little more, in units of float32.
  const auto exp2_to_bf16 = [](F16 x) { return plain::exp2_to_bf16(x, plain::set1(1.0F), plain::set1(-0.5F)); };
  for (const float low : {-126.0F, -9.0F, -0.1F})
    check_error("exp2 bf16", exp2_to_bf16, [](double x) { return std::exp2(x); }, low, 0, 0.53 * 65536);
  for (const float low : {-80.0F, -9.0F})
    check_error("silu bf16", [](F16 x) { return plain::silu_to_bf16(x); }, exact_silu, low, 20.0F, 0.037 * 65536);
  for (const float high : {1e-30F, 2.0F, 1e6F, 3e38F})
    check_error("log", [](F16 x) { return plain::log(x); }, [](double x) { return std::log(x); }, 1.2e-38F, high, 1.5);
  for (const float range : {0.8F, 100.0F, 1e5F, 6e6F, 1e9F, 1e12F}) {
    check_error("sin", [](F16 x) { return plain::sin(x); }, [](double x) { return std::sin(x); }, -range, range, 2.5);
    check_error("cos", [](F16 x) { return plain::cos(x); }, [](double x) { return std::cos(x); }, -range, range, 2.5);
  }
}

float one(F16 y) { return y.v[0]; }

TEST(special_values) {
  const cpu::FlushDenormals flush;
  const float inf = HUGE_VALF;
  const auto all = [](float x) { return plain::set1(x); };
  CHECK(one(plain::exp(all(0))) == 1.0F);
  CHECK(one(plain::exp(all(-inf))) == 0.0F && one(plain::exp(all(inf))) == inf);
  CHECK(one(plain::exp(all(-1e30F))) == 0.0F && one(plain::exp(all(1e30F))) == inf);
  for (const float x : {-127.0F, -150.0F, -1e30F, -inf})
    CHECK(one(plain::exp2_to_bf16(all(x), all(1), all(-0.5F))) == 0.0F);
  CHECK(one(plain::exp2_to_bf16(all(-1), all(2), all(1.5F))) == 1.0F &&
        one(plain::exp2_to_bf16(all(-63), all(2), all(-0.5F))) == 0x1p-126F);
  for (int i = 0; i < 1000; ++i)
    CHECK((std::bit_cast<uint32_t>(one(plain::exp2_to_bf16(all(-0.1F * static_cast<float>(i)), all(1), all(-0.5F)))) &
           0xffff) == 0);
  CHECK(one(plain::silu(all(-1000))) == 0.0F && one(plain::silu(all(inf))) == inf);
  CHECK(one(plain::silu_to_bf16(all(-1000))) == 0.0F && one(plain::silu_to_bf16(all(inf))) == inf);
  CHECK(one(plain::sigmoid(all(-inf))) == 0.0F && one(plain::sigmoid(all(inf))) == 1.0F);
  CHECK(one(plain::tanh(all(inf))) == 1.0F && one(plain::tanh(all(-inf))) == -1.0F);
  CHECK(one(plain::erf(all(inf))) == 1.0F && one(plain::erf(all(-9))) == -1.0F);
  CHECK(std::signbit(one(plain::tanh(all(-0.0F)))));
  CHECK(one(plain::log(all(0))) == -inf && one(plain::log(all(inf))) == inf && one(plain::log(all(1))) == 0.0F);
  CHECK(std::isnan(one(plain::log(all(-1)))));
  CHECK(std::isnan(one(plain::sin(all(inf)))) && std::isnan(one(plain::cos(all(-inf)))));
  CHECK(std::fabs(one(plain::sin(all(3e38F)))) <= 1.0F);
  CHECK(std::isnan(one(plain::exp2_to_bf16(all(std::nanf("")), all(1), all(-0.5F)))));
  F16 rows[16];
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 16; ++j) rows[i].v[j] = static_cast<float>(i * 16 + (j * 5 + i) % 16);
  const F16 most = plain::max_of_each(rows);
  for (int i = 0; i < 16; ++i) CHECK(most.v[i] == static_cast<float>(i * 16 + 15));
  const float nan = std::bit_cast<float>(0x7fc00155U);  // with a payload, which the exponent trick could spill into
  for (const auto y :
       {plain::exp(all(nan)), plain::sigmoid(all(nan)), plain::silu(all(nan)), plain::silu_to_bf16(all(nan)),
        plain::tanh(all(nan)), plain::erf(all(nan)), plain::log(all(nan)), plain::sin(all(nan)), plain::cos(all(nan))})
    CHECK(std::isnan(one(y)));
}

// All floats in steps, with the interesting ends.
Array sweep() {
  Array x(DataType::f32, {1 << 16});
  x.fill([](int64_t i) { return std::bit_cast<float>(static_cast<uint32_t>(i << 16 | (i * 40503 & 0xffff))); });
  for (int64_t i = 0; i < x.numel(); ++i)
    if (std::isnan(x.at(i))) x.set(i, static_cast<double>(i) / 1000);  // NaN payloads may differ
  return x;
}

TEST(all_levels_give_the_same_bits) {
  const Array x = sweep();
  Array out(DataType::f32, {x.numel()});
  using A = cpu::ActivationKind;
  for (const A kind : {A::relu, A::gelu_tanh, A::gelu_erf, A::fast_gelu, A::swish, A::sigmoid, A::log}) {
    run_everywhere(&KernelTable::activation, cpu::ActivationArgs{x, out, kind, 1.0F}, {&out});
  }
  using E = cpu::ElewiseKind;
  for (const E kind : {E::sin, E::cos, E::tanh})
    run_everywhere(&KernelTable::elewise, cpu::ElewiseArgs{x, {}, out, kind, 0}, {&out});
}

TEST(conversions_of_every_16_bit_pattern_and_many_floats) {
  for (const DataType dtype : {DataType::f16, DataType::bf16}) {
    Array all(dtype, {1 << 16}), wide(DataType::f32, {1 << 16}), back(dtype, {1 << 16});
    for (int64_t i = 0; i < all.numel(); ++i) all.view().as<uint16_t>()[i] = static_cast<uint16_t>(i);
    run_everywhere(&KernelTable::cast, cpu::CastArgs{all, wide}, {&wide});
    run_everywhere(&KernelTable::cast, cpu::CastArgs{wide, back}, {&back});
    for (int64_t i = 0; i < all.numel(); ++i)
      CHECK(std::isnan(wide.at(i)) ? std::isnan(back.at(i)) : all.same_bits(i, back, i, 1));
    const Array x = sweep();
    run_everywhere(&KernelTable::cast, cpu::CastArgs{x, back}, {&back});
  }
}

TEST(halves_round_to_nearest_even) {
  const std::pair<float, uint16_t> cases[] = {
      {1.0F, 0x3c00},         {-2.0F, 0xc000},        {65504.0F, 0x7bff},         {65519.9F, 0x7bff},
      {65520.0F, 0x7c00},     {0x1p-14F, 0x0400},     {0x1p-24F, 0x0001},         {0x1p-25F, 0x0000},
      {0x1.8p-25F, 0x0001},   {0x1.8p-24F, 0x0002},   {0x1.002p0F, 0x3c00},       {0x1.006p0F, 0x3c02},
      {0x1.ffep-15F, 0x0400}, {0x1.ff8p-15F, 0x03ff}, {-0x1.000002p-25F, 0x8001}, {0x1.ffffffp15F, 0x7c00}};
  for (const auto& [x, bits] : cases) {
    cpu::Half h;
    plain::narrow(x, &h);
    CHECK(h.bits == bits);
  }
}

}  // namespace
}  // namespace atb_core::test

TEST_MAIN()
