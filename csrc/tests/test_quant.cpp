// SPDX-License-Identifier: Apache-2.0
// Compares linear() with quantised weights bit for bit with the order that linear.h specifies, on every level.
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/quant_blocks.h"
#include "on_threads.h"

using namespace atb_core;
using namespace atb_core::cpu;
using test::Exact;
using test::on_threads;

namespace {

constexpr QuantFormat kBlockFormats[] = {QuantFormat::q4_0, QuantFormat::q4_1,  QuantFormat::q5_0, QuantFormat::q5_1,
                                         QuantFormat::q8_0, QuantFormat::q3_k,  QuantFormat::q4_k, QuantFormat::q5_k,
                                         QuantFormat::q6_k, QuantFormat::iq4_nl};

// Where the 16-bit floats of a block are: other bytes may have any value.
std::vector<int> halves_of(QuantFormat format) {
  switch (format) {
    case QuantFormat::q4_1:
    case QuantFormat::q5_1:
    case QuantFormat::q4_k:
    case QuantFormat::q5_k:
      return {0, 2};
    case QuantFormat::q3_k:
      return {108};
    case QuantFormat::q6_k:
      return {208};
    default:
      return {0};
  }
}

std::vector<std::byte> random_blocks(QuantFormat format, int64_t n, int64_t k, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(static_cast<size_t>(n) * quant_row_bytes(format, k));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const auto block = static_cast<size_t>(quant_layout(format).block_bytes);
  for (size_t start = 0; start < bytes.size(); start += block) {
    for (int at : halves_of(format)) {
      const float value = std::ldexp(static_cast<float>(random() % 2048) - 1024, -16);
      const uint16_t half = float_to_half(value);
      std::memcpy(bytes.data() + start + static_cast<size_t>(at), &half, sizeof half);
    }
  }
  return bytes;
}

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

struct Matrix {
  QuantFormat format;
  int64_t n, k;
  std::vector<std::byte> blocks;  // of a format with blocks
  std::vector<float> floats;      // of the others
  Exact storage;

  Matrix(QuantFormat f, int64_t rows, int64_t columns, unsigned seed)
      : format(f), n(rows), k(columns), storage(quant_packed_bytes(f, rows, columns)) {
    // Filled with garbage, because packing must write the padding.
    std::memset(storage.data(), 0x7f, storage.bytes());
    const int64_t all = packed_blocks(n), half = all / 2;
    if (quant_layout(f).block == 0) {
      floats = random_floats(n * k, seed);
      CHECK(quantize_pack(f, floats.data(), DataType::f32, n, k, storage.data(), half, all));
      CHECK(quantize_pack(f, floats.data(), DataType::f32, n, k, storage.data(), 0, half));
    } else {
      blocks = random_blocks(f, n, k, seed);
      quant_pack(f, blocks.data(), n, k, storage.data(), half, all);
      quant_pack(f, blocks.data(), n, k, storage.data(), 0, half);
    }
  }
  PackedWeight weight(DataType dtype = DataType::f32) {
    return {.dtype = dtype, .n = n, .k = k, .data = storage.data(), .format = format};
  }
  QuantStep step(int64_t row, int64_t first) const {
    QuantStep values;
    if (!blocks.empty()) {
      const size_t bytes = quant_row_bytes(format, k);
      read_blocks(format, blocks.data() + static_cast<size_t>(row) * bytes, first, k, values);
    } else if (format == QuantFormat::int4) {
      float x[64] = {};
      for (int64_t i = 0; i < 64 && first + i < k; ++i) x[i] = floats[static_cast<size_t>(row * k + first + i)];
      CHECK(quantize_groups(x, std::min<int64_t>(64, k - first), values));
    } else {
      const float inverse = 1 / channel(row);
      for (int64_t i = 0; i < 64; ++i) {
        const float x = first + i < k ? floats[static_cast<size_t>(row * k + first + i)] : 0;
        values.q[i] = static_cast<uint8_t>(128 + std::nearbyint(x * inverse));
      }
    }
    return values;
  }
  float channel(int64_t row) const {
    float largest = 0;
    for (int64_t i = 0; i < k; ++i) largest = std::max(largest, std::fabs(floats[static_cast<size_t>(row * k + i)]));
    return largest / 127;
  }
};

// A group of activations as integers.
struct Group {
  int q[64] = {};
  float scale = 0;

  Group(const float* x, int64_t count) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
    if (largest < 0x1p-100F) return;
    scale = largest / 127;
    const float inverse = 127 / largest;
    for (int64_t i = 0; i < count; ++i) q[i] = static_cast<int>(std::nearbyint(x[i] * inverse));
  }
};

// The sum of i (q - zero) over elements [begin, end) of a group that starts at element `at` of the step, and of i.
int product(const Group& x, const QuantStep& w, int zero, int at, int begin, int end) {
  int sum = 0;
  for (int i = begin; i < end; ++i) sum += x.q[i] * (w.q[at + i] - zero);
  return sum;
}
int total(const Group& x) {
  int sum = 0;
  for (int q : x.q) sum += q;
  return sum;
}

float spec(const float* x, const Matrix& w, int64_t row) {
  const QuantLayout layout = quant_layout(w.format);
  const int size = layout.scales == QuantScales::channels ? 64 : 32;
  float acc = 0;
  for (int64_t first = 0; first < w.k; first += size) {
    const Group group(x + first, std::min<int64_t>(size, w.k - first));
    const int64_t start = first / layout.step * layout.step;
    const QuantStep step = w.step(row, start);
    const int at = static_cast<int>(first - start), g = at / 32;
    const auto sum_of = [&](int begin, int end) {
      return static_cast<float>(product(group, step, layout.zero, at, begin, end));
    };
    const auto x = static_cast<float>(total(group));
    float value = sum_of(0, size);
    switch (layout.scales) {
      case QuantScales::channels:
        break;
      case QuantScales::halves:
        value *= half_to_float(step.half_scale[g]);
        if (layout.minimum) value = std::fma(x, half_to_float(step.half_min[g]), value);
        break;
      case QuantScales::super_32:
        value *= half_to_float(step.half_scale[0]) * step.scale[g];
        value = std::fma(x, -(half_to_float(step.half_min[0]) * step.min[g]), value);
        break;
      case QuantScales::super_16: {
        const float outer = half_to_float(step.half_scale[0]);
        value = std::fma(sum_of(16, 32), outer * static_cast<int8_t>(step.scale[2 * g + 1]),
                         sum_of(0, 16) * (outer * static_cast<int8_t>(step.scale[2 * g])));
        break;
      }
      case QuantScales::integers:  // of no format
        break;
    }
    acc = std::fma(value, group.scale, acc);
  }
  return layout.scales == QuantScales::channels ? acc * w.channel(row) : acc;
}

int64_t elements(QuantFormat format, int64_t blocks) {
  const int block = quant_layout(format).block;
  return block == 0 ? blocks * 32 + 5 : blocks * block;
}

void run(Isa isa, const LinearArgs& args, int threads) {
  ScratchSize need;
  for (const LinearPart& part : args.parts) {
    const ScratchSize own = linear_scratch(isa, args.dtype, args.m, args.k, part.weight.format);
    need = {std::max(need.shared, own.shared), std::max(need.per_thread, own.per_thread)};
  }
  CHECK(!on_threads(threads, need, [&](const Worker& worker) { linear(isa, args, worker); }));
}

void expect_equal(Matrix& w, Isa isa, int threads, int64_t m) {
  const std::vector<float> x = random_floats(m * w.k, 7), bias = random_floats(w.n, 8);
  std::vector<float> y(static_cast<size_t>(m * w.n));
  const LinearPart part{w.weight(), 0, w.n, bias.data(), DataType::f32, y.data(), DataType::f32, w.n};
  run(isa, {x.data(), DataType::f32, m, w.k, w.k, {&part, 1}}, threads);
  const FlushDenormals flush;
  int64_t bad = 0;
  for (int64_t i = 0; i < m * w.n; ++i) {
    const float expected = spec(x.data() + i / w.n * w.k, w, i % w.n) + bias[static_cast<size_t>(i % w.n)];
    bad += std::bit_cast<uint32_t>(expected) != std::bit_cast<uint32_t>(y[static_cast<size_t>(i)]);
  }
  if (bad == 0) return;
  test::report(__FILE__, __LINE__,
               std::string(name(isa)) + " " + std::string(name(w.format)) + " " + std::to_string(threads) +
                   " threads, m " + std::to_string(m) + " n " + std::to_string(w.n) + " k " + std::to_string(w.k) +
                   ": " + std::to_string(bad) + " values differ");
}

std::vector<QuantFormat> all_formats() {
  std::vector<QuantFormat> formats(std::begin(kBlockFormats), std::end(kBlockFormats));
  formats.push_back(QuantFormat::int8);
  formats.push_back(QuantFormat::int4);
  return formats;
}

}  // namespace

TEST(every_number_of_rows_gives_the_specified_bits) {
  for (QuantFormat format : all_formats()) {
    Matrix w(format, 70, elements(format, 3), 1);
    for (Isa isa : supported_isas()) {
      for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 29}) expect_equal(w, isa, 1 + static_cast<int>(m % 3), m);
    }
  }
}

TEST(long_rows_and_odd_columns_give_the_specified_bits) {
  for (QuantFormat format : all_formats()) {
    Matrix w(format, 37, elements(format, quant_layout(format).block == 256 ? 19 : 77), 2);
    for (Isa isa : supported_isas()) {
      for (int64_t m : {1, 7, 19}) expect_equal(w, isa, 2, m);
    }
  }
}

// More columns than a task has, and rows for several blocks.
TEST(many_rows_and_columns_give_the_specified_bits) {
  Matrix w(QuantFormat::q4_k, 288, 512, 3);
  for (Isa isa : supported_isas()) {
    if (isa != Isa::portable && isa != Isa::amx_emulated) expect_equal(w, isa, 2, 301);
  }
}

TEST(types_of_activations_are_rounded_like_their_float32) {
  Matrix w(QuantFormat::q8_0, 33, 96, 4);
  const int64_t m = 3;
  const std::vector<float> wide = random_floats(m * w.k, 5);
  for (DataType dtype : {DataType::bf16, DataType::f16}) {
    std::vector<uint16_t> x(wide.size());
    std::vector<float> same(wide.size());
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = dtype == DataType::f16 ? float_to_half(wide[i])
                                    : static_cast<uint16_t>(std::bit_cast<uint32_t>(wide[i]) >> 16);
      same[i] = dtype == DataType::f16 ? half_to_float(x[i]) : std::bit_cast<float>(uint32_t{x[i]} << 16);
    }
    for (Isa isa : supported_isas()) {
      std::vector<float> y(static_cast<size_t>(m * w.n)), expected(y.size());
      const LinearPart part{w.weight(), 0, w.n, nullptr, DataType::f32, y.data(), DataType::f32, w.n};
      run(isa, {x.data(), dtype, m, w.k, w.k, {&part, 1}}, 2);
      LinearPart reference = part;
      reference.out = expected.data();
      run(isa, {same.data(), DataType::f32, m, w.k, w.k, {&reference, 1}}, 1);
      CHECK(y == expected);
    }
  }
}

// x and weights of int8.
TEST(sums_of_integers_are_exact) {
  const int64_t n = 37, k = 150, most = 9;
  std::mt19937 random(6);
  std::vector<int8_t> x(most * k), w(n * k);
  for (int8_t& value : x) value = static_cast<int8_t>(random());
  for (int8_t& value : w) value = static_cast<int8_t>(random());
  for (Isa isa : supported_isas()) {
    Exact packed(packed_bytes(isa, DataType::i8, n, k));
    pack(isa, w.data(), DataType::i8, n, k, false, packed.data(), 0, packed_blocks(n));
    for (int64_t m = 1; m <= most; ++m) {
      std::vector<int32_t> y(static_cast<size_t>(m * n));
      const LinearPart part{{.dtype = DataType::i8, .n = n, .k = k, .data = packed.data()},
                            0,
                            n,
                            nullptr,
                            DataType::i32,
                            y.data(),
                            DataType::i32,
                            n};
      run(isa, {x.data(), DataType::i8, m, k, k, {&part, 1}}, 2);
      int64_t bad = 0;
      for (int64_t i = 0; i < m * n; ++i) {
        int32_t sum = 0;
        for (int64_t j = 0; j < k; ++j)
          sum += x[static_cast<size_t>(i / n * k + j)] * w[static_cast<size_t>(i % n * k + j)];
        bad += y[static_cast<size_t>(i)] != sum;
      }
      CHECK(bad == 0);
    }
  }
}

// Parts of several formats share one x, as when a checkpoint has the pieces of a merged matrix in different ones.
TEST(parts_of_different_formats_share_one_x) {
  const int64_t k = 512;
  for (int64_t m : {1, 9, 40}) {
    Matrix a(QuantFormat::q4_k, 45, k, 1), b(QuantFormat::q6_k, 33, k, 2), c(QuantFormat::q4_k, 20, k, 3);
    const std::vector<float> x = random_floats(m * k, 5);
    for (Isa isa : supported_isas()) {
      const int64_t ld = 98;
      std::vector<float> y(static_cast<size_t>(m * ld));
      const std::vector<LinearPart> parts = {
          {a.weight(), 3, 42, nullptr, DataType::f32, y.data(), DataType::f32, ld},
          {b.weight(), 0, 33, nullptr, DataType::f32, y.data() + 42, DataType::f32, ld},
          {c.weight(), 0, 20, nullptr, DataType::f32, y.data() + 75, DataType::f32, ld},
      };
      run(isa, {x.data(), DataType::f32, m, k, k, parts}, 3);
      const FlushDenormals flush;
      int64_t bad = 0;
      for (int64_t r = 0; r < m; ++r) {
        const float* own = x.data() + r * k;
        const float* out = y.data() + r * ld;
        for (int64_t i = 0; i < 42; ++i) bad += out[i] != spec(own, a, 3 + i);
        for (int64_t i = 0; i < 33; ++i) bad += out[42 + i] != spec(own, b, i);
        for (int64_t i = 0; i < 20; ++i) bad += out[75 + i] != spec(own, c, i);
      }
      CHECK(bad == 0);
    }
  }
}

TEST(activations_that_are_not_finite_make_the_row_nan) {
  Matrix w(QuantFormat::q4_0, 32, 64, 1);
  for (float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    for (Isa isa : supported_isas()) {
      std::vector<float> x = random_floats(2 * 64, 1), y(2 * 32);
      x[70] = bad;
      const LinearPart part{w.weight(), 0, 32, nullptr, DataType::f32, y.data(), DataType::f32, 32};
      run(isa, {x.data(), DataType::f32, 2, 64, 64, {&part, 1}}, 1);
      for (int i = 0; i < 32; ++i) CHECK(std::isfinite(y[static_cast<size_t>(i)]));
      for (int i = 32; i < 64; ++i) CHECK(std::isnan(y[static_cast<size_t>(i)]));
    }
  }
}

// A row that is looked up is what a product with a unit vector, whose only integer is 127, gives but for rounding.
TEST(rows_can_be_looked_up) {
  for (QuantFormat format : all_formats()) {
    Matrix w(format, 40, elements(format, 2), 6);
    const std::vector<int64_t> rows = {39, 0, 17};
    std::vector<float> out(rows.size() * static_cast<size_t>(w.k));
    const auto error = on_threads(2, {}, [&](const Worker& worker) {
      gather_packed_rows(Isa::portable, w.weight(), rows.data(), DataType::i64, 3, out.data(), worker);
    });
    CHECK(!error);
    std::vector<float> unit(static_cast<size_t>(w.k));
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t j = 0; j < w.k; j += 7) {
        unit[static_cast<size_t>(j)] = 1;
        const float value = out[i * static_cast<size_t>(w.k) + static_cast<size_t>(j)],
                    expected = spec(unit.data(), w, rows[i]);
        unit[static_cast<size_t>(j)] = 0;
        CHECK(std::fabs(value - expected) <= 1e-5F * (std::fabs(expected) + 0.01F) + 2e-5F);
      }
    }
  }
}

TEST(values_that_are_not_finite_are_not_quantised) {
  for (QuantFormat format : {QuantFormat::int8, QuantFormat::int4}) {
    std::vector<float> w = random_floats(32 * 64, 1);
    w[100] = std::numeric_limits<float>::infinity();
    Exact packed(quant_packed_bytes(format, 32, 64));
    CHECK(!quantize_pack(format, w.data(), DataType::f32, 32, 64, packed.data(), 0, 2));
    w[100] = 0;
    CHECK(quantize_pack(format, w.data(), DataType::f32, 32, 64, packed.data(), 0, 2));
  }
}

TEST_MAIN()
