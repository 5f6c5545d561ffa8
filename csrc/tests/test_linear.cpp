// SPDX-License-Identifier: Apache-2.0
// Compares linear() bit for bit with the order of accumulation that linear.h specifies, on every level of this machine.
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "check.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear.h"
#include "on_threads.h"

using namespace atb_core;
using namespace atb_core::cpu;
using test::Exact;
using test::on_threads;

namespace {

constexpr DataType kTypes[] = {DataType::bf16, DataType::f16, DataType::f32};

// ---- The types, one value at a time ----

float half_to_float(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                        : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return h >> 15 != 0 ? -magnitude : magnitude;
}

uint16_t float_to_half(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(x));
  if (magnitude >= 65520) return sign | 0x7c00;
  const int exponent = magnitude < std::ldexp(1.0, -14) ? -14 : std::ilogb(magnitude);
  const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return static_cast<uint16_t>(sign | (units + (static_cast<uint32_t>(exponent + 14) << 10)));
}

uint16_t float_to_bf16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  return static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

// A vector of one of the types.
struct Array {
  DataType dtype;
  std::vector<std::byte> bytes;

  Array(DataType t, int64_t count, int fill = 0)
      : dtype(t), bytes(static_cast<size_t>(count) * itemsize(t), std::byte(fill)) {}
  float get(int64_t i) const {
    if (dtype == DataType::f32) return reinterpret_cast<const float*>(bytes.data())[i];
    const uint16_t raw = reinterpret_cast<const uint16_t*>(bytes.data())[i];
    return dtype == DataType::f16 ? half_to_float(raw) : std::bit_cast<float>(uint32_t{raw} << 16);
  }
  void set(int64_t i, float v) {
    if (dtype == DataType::f32) {
      reinterpret_cast<float*>(bytes.data())[i] = v;
    } else {
      reinterpret_cast<uint16_t*>(bytes.data())[i] = dtype == DataType::f16 ? float_to_half(v) : float_to_bf16(v);
    }
  }
  bool same(int64_t i, const Array& other, int64_t j) const {
    const size_t size = itemsize(dtype);
    return std::memcmp(&bytes[static_cast<size_t>(i) * size], &other.bytes[static_cast<size_t>(j) * size], size) == 0;
  }
};

// Normal values whose exponents are spread, so that a different order of additions shows in the bits; with
// `tiny`, products and sums fall into the denormals.
Array random_array(DataType dtype, int64_t count, uint32_t seed, bool tiny = false) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Array a(dtype, count);
  const int spread = dtype == DataType::f16 ? 4 : 12;
  for (int64_t i = 0; i < count; ++i) {
    const int exponent = static_cast<int>(generator() % static_cast<uint32_t>(spread)) - spread / 2;
    a.set(i, std::ldexp(normal(generator), tiny ? exponent - 64 : exponent));
  }
  return a;
}

// ---- The specification ----

float spec(const Array& x, int64_t x_at, const Array& w, int64_t w_at, int64_t k) {
  float acc = 0;
  for (int64_t base = 0; base < k; base += 32) {
    float chain[2] = {0, 0};
    for (int64_t i = base; i < base + 32; ++i) {
      const float a = i < k ? x.get(x_at + i) : 0, b = i < k ? w.get(w_at + i) : 0;
      chain[i % 2] = std::fma(a, b, chain[i % 2]);
    }
    acc = acc + (chain[0] + chain[1]);
  }
  return acc;
}

// ---- Running a kernel ----

void run(Isa isa, const LinearArgs& args, int threads) {
  CHECK(!on_threads(threads, linear_scratch(isa, args.dtype, args.m, args.k),
                    [&](const Worker& worker) { linear(isa, args, worker); }));
}

struct Packed {
  Exact storage;
  PackedWeight weight;
  Packed(Isa isa, const Array& w, int64_t n, int64_t k, bool kn = false) : storage(packed_bytes(isa, w.dtype, n, k)) {
    // Filled with garbage, because the kernel must write the padding.
    std::memset(storage.data(), 0x7f, storage.bytes());
    const int64_t blocks = packed_blocks(n), half = blocks / 2;
    pack(isa, w.bytes.data(), w.dtype, n, k, kn, storage.data(), half, blocks);
    pack(isa, w.bytes.data(), w.dtype, n, k, kn, storage.data(), 0, half);
    weight = {w.dtype, n, k, storage.data()};
  }
};

struct Shape {
  int64_t m, n, k;
};

struct Problem {
  Shape shape;
  Array x, w, bias, expected;

  Problem(DataType dtype, Shape s, DataType out, bool tiny = false)
      : shape(s),
        x(random_array(dtype, s.m * s.k, 1, tiny)),
        w(random_array(dtype, s.n * s.k, 2, tiny)),
        bias(random_array(dtype, s.n, 3, tiny)),
        expected(out, s.m * s.n) {
    const FlushDenormals flush;
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) expected.set(i * s.n + j, spec(x, i * s.k, w, j * s.k, s.k) + bias.get(j));
    }
  }

  // The number of differing values.
  int64_t differences(Isa isa, int threads, int64_t rows) const {
    Packed packed(isa, w, shape.n, shape.k);
    Array y(expected.dtype, rows * shape.n, 0x55);
    const LinearPart part{packed.weight, 0, shape.n, bias.bytes.data(), bias.dtype, y.bytes.data(), y.dtype, shape.n};
    run(isa, {x.bytes.data(), x.dtype, rows, shape.k, shape.k, {&part, 1}}, threads);
    int64_t bad = 0;
    for (int64_t i = 0; i < rows * shape.n; ++i) bad += !y.same(i, expected, i);
    return bad;
  }
};

void expect_equal(const Problem& p, Isa isa, int threads, int64_t rows) {
  const int64_t bad = p.differences(isa, threads, rows);
  if (bad == 0) return;
  test::report(__FILE__, __LINE__,
               std::string(name(isa)) + " " + std::string(name(p.x.dtype)) + " " + std::to_string(threads) +
                   " threads, m " + std::to_string(rows) + " n " + std::to_string(p.shape.n) + " k " +
                   std::to_string(p.shape.k) + ": " + std::to_string(bad) + " values differ");
}

}  // namespace

TEST(every_number_of_rows_gives_the_specified_bits) {
  for (DataType dtype : kTypes) {
    const Problem p(dtype, {40, 70, 100}, dtype);
    for (Isa isa : supported_isas()) {
      for (int64_t m = 1; m <= 40; ++m) expect_equal(p, isa, 1 + static_cast<int>(m % 3), m);
    }
  }
}

TEST(odd_sizes_give_the_specified_bits) {
  const Shape shapes[] = {{1, 1, 1}, {3, 15, 31}, {2, 16, 32}, {5, 17, 33}, {7, 33, 65}, {19, 129, 257}, {4, 64, 0}};
  for (DataType dtype : kTypes) {
    for (const Shape& shape : shapes) {
      for (DataType out : {dtype, DataType::f32}) {
        const Problem p(dtype, shape, out);
        for (Isa isa : supported_isas()) expect_equal(p, isa, 2, shape.m);
      }
    }
  }
}

TEST(long_sums_give_the_specified_bits) {
  for (DataType dtype : kTypes) {
    const Problem p(dtype, {18, 40, 4864}, DataType::f32);
    for (Isa isa : supported_isas()) {
      for (int64_t m : {1, 2, 4, 7, 16, 18}) expect_equal(p, isa, 2, m);
    }
  }
}

TEST(many_rows_and_columns_give_the_specified_bits) {
  // Three blocks of rows, of which L2 keeps all or, of the second shape, two.
  for (const Shape& shape : {Shape{541, 320, 200}, Shape{541, 40, 3000}}) {
    const Problem p(DataType::bf16, shape, DataType::bf16);
    for (Isa isa : supported_isas()) expect_equal(p, isa, 2, shape.m);
  }
}

// More rows than one round prepares, so that the threads run several rounds.
TEST(rows_in_rounds_give_the_specified_bits) {
  const int64_t k = 1 << 16;
  const Problem p(DataType::bf16, {201, 2, k}, DataType::bf16);
  for (Isa isa : supported_isas()) {
    const size_t shared = linear_scratch(isa, DataType::bf16, p.shape.m, k).shared;
    CHECK(shared < size_t{201} * k * 2);
    expect_equal(p, isa, 2, p.shape.m);
  }
}

TEST(denormals_are_flushed_alike) {
  for (DataType dtype : {DataType::bf16, DataType::f32}) {
    const Problem p(dtype, {9, 48, 96}, DataType::f32, true);
    for (Isa isa : supported_isas()) {
      expect_equal(p, isa, 1, 9);
      expect_equal(p, isa, 1, 1);
    }
  }
}

// Several weights, and column ranges of one weight that start and end anywhere.
TEST(parts_share_one_x) {
  const int64_t m = 8, k = 96, ld = 300;
  for (DataType dtype : kTypes) {
    const Array x = random_array(dtype, m * k, 1), w1 = random_array(dtype, 100 * k, 2),
                w2 = random_array(dtype, 48 * k, 3);
    const Array bias = random_array(DataType::f32, 100, 4);
    for (Isa isa : supported_isas()) {
      const Packed p1(isa, w1, 100, k), p2(isa, w2, 48, k);
      struct Range {
        const Packed* weight;
        int64_t begin, count;
      };
      const std::vector<Range> ranges = {{&p1, 0, 37}, {&p1, 37, 60}, {&p1, 97, 3},
                                         {&p2, 0, 48}, {&p2, 16, 0},  {&p2, 33, 1}};
      std::vector<Array> outs(ranges.size(), Array(dtype, m * ld, 0x55));
      std::vector<LinearPart> parts;
      for (size_t i = 0; i < ranges.size(); ++i) {
        const auto& [packed, begin, count] = ranges[i];
        const void* b = packed == &p1 ? bias.bytes.data() + begin * 4 : nullptr;
        parts.push_back({packed->weight, begin, count, b, DataType::f32, outs[i].bytes.data(), dtype, ld});
      }
      run(isa, {x.bytes.data(), dtype, m, k, k, parts}, 2);
      const FlushDenormals flush;
      int64_t bad = 0, stray = 0;
      for (size_t i = 0; i < ranges.size(); ++i) {
        const auto& [packed, begin, count] = ranges[i];
        Array expected(dtype, 1), untouched(dtype, 1, 0x55);
        for (int64_t r = 0; r < m; ++r) {
          for (int64_t c = 0; c < count; ++c) {
            const float sum = spec(x, r * k, packed == &p1 ? w1 : w2, (begin + c) * k, k);
            expected.set(0, packed == &p1 ? sum + bias.get(begin + c) : sum);
            bad += !outs[i].same(r * ld + c, expected, 0);
          }
          for (int64_t c = count; c < ld; ++c) stray += !outs[i].same(r * ld + c, untouched, 0);
        }
      }
      CHECK(bad == 0);
      CHECK(stray == 0);
    }
  }
}

// The halves of one weight, of more gates than a thread keeps sums of, and two weights whose last pair of blocks is not full.
TEST(a_gate_in_the_products_has_the_bits_of_one_after_them) {
  for (DataType dtype : kTypes) {
    const int64_t k = dtype == DataType::bf16 ? 300 : 100;  // several slices of k for tile registers
    const Array w = random_array(dtype, 1088 * k, 2), bias = random_array(DataType::f32, 1088, 3);
    for (Isa isa : supported_isas()) {
      const Packed whole(isa, w, 1088, k), narrow(isa, w, 50, k);
      for (const auto& [second, count, up, most] :
           {std::tuple{&whole, 544, 544, 40}, std::tuple{&narrow, 50, 0, 300}}) {
        for (int64_t m : {1, 3, 18, most}) {
          const Array x = random_array(dtype, m * k, 1);
          Array sides(dtype, 2 * m * count), apart(dtype, m * count, 0x55), together(dtype, m * count, 0x55);
          LinearPart parts[] = {
              {whole.weight, 0, count, bias.bytes.data(), DataType::f32, sides.bytes.data(), dtype, 2 * count},
              {second->weight, up, count, bias.bytes.data() + 64, DataType::f32, nullptr, dtype, 2 * count}};
          parts[1].out = sides.bytes.data() + static_cast<size_t>(count) * itemsize(dtype);
          run(isa, {x.bytes.data(), dtype, m, k, k, parts}, 2);
          ActivationArgs swiglu{{sides.bytes.data(), dtype, 2, {m, 2 * count}},
                                {apart.bytes.data(), dtype, 2, {m, count}},
                                ActivationKind::swiglu};
          on_threads(1, {}, [&](const Worker& worker) { kernel_table(isa).activation(swiglu, worker); });
          CHECK(can_gate(parts));
          for (LinearPart& part : parts) part.out = together.bytes.data(), part.out_ld = count;
          for (int threads : {1, 2}) {
            std::fill(together.bytes.begin(), together.bytes.end(), std::byte{0x55});
            run(isa, {x.bytes.data(), dtype, m, k, k, parts, true}, threads);
            CHECK(together.bytes == apart.bytes);
          }
        }
      }
    }
  }
}

TEST(rows_of_x_may_be_apart) {
  const int64_t m = 21, n = 32, k = 64, ld = 80;
  const Array x = random_array(DataType::bf16, m * ld, 1), w = random_array(DataType::bf16, n * k, 2);
  for (Isa isa : supported_isas()) {
    const Packed packed(isa, w, n, k);
    Array y(DataType::f32, m * n);
    const LinearPart part{packed.weight, 0, n, nullptr, DataType::bf16, y.bytes.data(), DataType::f32, n};
    run(isa, {x.bytes.data(), DataType::bf16, m, k, ld, {&part, 1}}, 1);
    const FlushDenormals flush;
    for (int64_t i = 0; i < m * n; ++i) CHECK(y.get(i) == spec(x, i / n * ld, w, i % n * k, k));
  }
}

TEST(a_transposed_source_packs_to_the_same_bytes) {
  const int64_t n = 37, k = 45;
  for (DataType dtype : kTypes) {
    const Array w = random_array(dtype, n * k, 1);
    Array transposed(dtype, n * k);
    for (int64_t i = 0; i < n * k; ++i) transposed.set(i % k * n + i / k, w.get(i));
    for (Isa isa : supported_isas()) {
      Packed a(isa, w, n, k), b(isa, transposed, n, k, true);
      CHECK(std::memcmp(a.storage.data(), b.storage.data(), a.storage.bytes()) == 0);
    }
  }
}

TEST(rows_can_be_looked_up_in_a_packed_weight) {
  const int64_t n = 50, k = 70;
  const std::vector<int64_t> wide = {0, 49, 16, 31, 16};
  const std::vector<int32_t> narrow(wide.begin(), wide.end());
  for (DataType dtype : kTypes) {
    const Array w = random_array(dtype, n * k, 1);
    for (Isa isa : supported_isas()) {
      const Packed packed(isa, w, n, k);
      for (DataType index : {DataType::i64, DataType::i32}) {
        Array out(dtype, 5 * k);
        const void* indices = index == DataType::i64 ? static_cast<const void*>(wide.data()) : narrow.data();
        const auto error = on_threads(2, {}, [&](const Worker& worker) {
          gather_packed_rows(isa, packed.weight, indices, index, 5, out.bytes.data(), worker);
        });
        CHECK(!error);
        int64_t bad = 0;
        for (int64_t i = 0; i < 5 * k; ++i) bad += !out.same(i, w, wide[static_cast<size_t>(i / k)] * k + i % k);
        CHECK(bad == 0);
      }
    }
  }
}

TEST(a_bad_index_is_reported_and_not_read) {
  const int64_t n = 20, k = 32;
  const Packed packed(Isa::portable, random_array(DataType::bf16, n * k, 1), n, k);
  for (int64_t bad : {int64_t{20}, int64_t{-1}, int64_t{1} << 40}) {
    const std::vector<int64_t> indices = {3, bad};
    Array out(DataType::bf16, 2 * k, 0x55);
    const auto error = on_threads(1, {}, [&](const Worker& worker) {
      gather_packed_rows(Isa::portable, packed.weight, indices.data(), DataType::i64, 2, out.bytes.data(), worker);
    });
    CHECK(error && error->position == 1 && error->value == bad && error->limit == n);
    CHECK(out.bytes[static_cast<size_t>(k) * 2] == std::byte{0x55});
  }
}

TEST_MAIN()
