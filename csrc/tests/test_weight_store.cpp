// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "cpu/engine/program.h"
#include "cpu_runtime.h"
#include "graph_builder.h"

using namespace atb_core;
using namespace atb_core::test;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

namespace {

constexpr int64_t kN = 20, kK = 40;

// Small integers, whose sums are exact, so that all layouts give the same result.
Floats matrix(int64_t rows, int64_t columns) {
  Floats values(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 31) % 17) - 8;
  return values;
}

struct Fixture {
  std::shared_ptr<Runtime> runtime = make_runtime();
  std::shared_ptr<WeightStore> store = std::make_shared<WeightStore>(runtime);
};

// y = x W^T with the weight "w" of shape [kN, kK].
GraphSpec linear() {
  GraphBuilder b;
  const int x = b.add("x", TensorKind::input, Ints{2, kK}), w = b.add("w", TensorKind::weight, Ints{kN, kK});
  b.node("Linear", {}, {x, w}, {b.add("y", TensorKind::output, Ints{2, kN})});
  return b.spec;
}

// Rows of the weight "w".
GraphSpec lookup() {
  GraphBuilder b;
  const int w = b.add("w", TensorKind::weight, Ints{kN, kK});
  const int ids = b.add("ids", TensorKind::input, Ints{2}, DataType::i32);
  b.node("Gather", {}, {w, ids}, {b.add("y", TensorKind::output, Ints{2, kK})});
  return b.spec;
}

// -w, which requires the unpacked weight.
GraphSpec negation() {
  GraphBuilder b;
  const int w = b.add("w", TensorKind::weight, Ints{kN, kK});
  b.node("Elewise", elewise("ELEWISE_NEG"), {w}, {b.add("y", TensorKind::output, Ints{kN, kK})});
  return b.spec;
}

Floats run_linear(Program& program, Floats x) {
  Floats y(2 * kN);
  program.run({{program.external("x"), x.data(), {2, kK}}, {program.external("y"), y.data(), {2, kN}}});
  return y;
}

Floats run_lookup(Program& program, std::vector<int32_t> ids) {
  Floats y(2 * kK);
  program.run({{program.external("ids"), ids.data(), {2}}, {program.external("y"), y.data(), {2, kK}}});
  return y;
}

Floats expected_linear(const Floats& x, const Floats& w) {
  Floats y(2 * kN);
  for (size_t m = 0; m < 2; ++m) {
    for (size_t n = 0; n < kN; ++n) {
      for (size_t k = 0; k < kK; ++k) y[m * kN + n] += x[m * kK + k] * w[n * kK + k];
    }
  }
  return y;
}

}  // namespace

TEST(a_weight_is_packed_when_it_is_set) {
  Fixture f;
  Program program(f.runtime, f.store, linear());
  const Floats w = matrix(kN, kK), x = matrix(2, kK);
  f.store->set("w", w.data(), DataType::f32, {kN, kK});
  CHECK(f.store->info("w").packed);
  CHECK(f.store->bytes() == cpu::packed_bytes(f.runtime->isa(), DataType::f32, kN, kK));
  CHECK(run_linear(program, x) == expected_linear(x, w));
}

TEST(a_weight_that_is_there_already_is_packed_for_a_later_program) {
  Fixture f;
  const Floats w = matrix(kN, kK), x = matrix(2, kK);
  f.store->set("w", w.data(), DataType::f32, {kN, kK});
  CHECK(!f.store->info("w").packed);
  Program program(f.runtime, f.store, linear());
  CHECK(f.store->info("w").packed);
  CHECK(run_linear(program, x) == expected_linear(x, w));
}

TEST(lookup_and_linear_share_one_packed_copy) {
  Fixture f;
  Program rows(f.runtime, f.store, lookup());
  const Floats w = matrix(kN, kK), x = matrix(2, kK);
  f.store->set("w", w.data(), DataType::f32, {kN, kK});
  const Floats before = run_lookup(rows, {3, 19});
  CHECK(std::equal(before.begin(), before.begin() + kK, w.begin() + 3 * kK));
  Program program(f.runtime, f.store, linear());
  CHECK(f.store->info("w").packed);
  CHECK(f.store->bytes() == cpu::packed_bytes(f.runtime->isa(), DataType::f32, kN, kK));
  CHECK(run_lookup(rows, {3, 19}) == before);
  CHECK(run_linear(program, x) == expected_linear(x, w));
  CHECK_THROWS(run_lookup(rows, {3, 20}), "index out of range (value 20");
}

TEST(a_program_that_needs_it_plain_gets_it_plain_and_linear_still_works) {
  Fixture f;
  Program program(f.runtime, f.store, linear());
  const Floats w = matrix(kN, kK), x = matrix(2, kK);
  f.store->set("w", w.data(), DataType::f32, {kN, kK});
  CHECK(run_linear(program, x) == expected_linear(x, w));
  Program plain(f.runtime, f.store, negation());
  CHECK(!f.store->info("w").packed);
  Floats y(w.size());
  plain.run({{plain.external("y"), y.data(), {kN, kK}}});
  for (size_t i = 0; i < w.size(); ++i) CHECK(y[i] == -w[i]);
  CHECK(run_linear(program, x) == expected_linear(x, w));
}

TEST(a_matrix_stored_k_by_n_is_packed_and_unpacked_too) {
  Fixture f;
  GraphBuilder b;
  const int x = b.add("x", TensorKind::input, Ints{2, kN}), w = b.add("w", TensorKind::weight, Ints{kN, kK});
  b.node("Linear", {{"transpose_b", false}}, {x, w}, {b.add("y", TensorKind::output, Ints{2, kK})});
  Program program(f.runtime, f.store, b.spec);
  const Floats values = matrix(kN, kK);
  f.store->set("w", values.data(), DataType::f32, {kN, kK});
  CHECK(f.store->info("w").packed);
  Program plain(f.runtime, f.store, negation());
  CHECK(!f.store->info("w").packed);
  Floats y(values.size());
  plain.run({{plain.external("y"), y.data(), {kN, kK}}});
  for (size_t i = 0; i < values.size(); ++i) CHECK(y[i] == -values[i]);
}

TEST(weights_can_be_replaced) {
  Fixture f;
  Program program(f.runtime, f.store, linear());
  const Floats x = matrix(2, kK), zero(kN * kK, 0), w = matrix(kN, kK);
  f.store->set("w", w.data(), DataType::f32, {kN, kK});
  run_linear(program, x);
  f.store->set("w", zero.data(), DataType::f32, {kN, kK});
  CHECK(run_linear(program, x) == Floats(2 * kN, 0));
}

TEST(missing_and_misshapen_weights_are_named) {
  Fixture f;
  Program program(f.runtime, f.store, linear());
  const Floats w = matrix(kN, kK);
  CHECK_THROWS(run_linear(program, matrix(2, kK)), "weight 'w' has not been set");
  CHECK_THROWS(f.store->set("w", w.data(), DataType::f32, {kK, kN}),
               "weight 'w' is float32[40, 20], but float32[20, 40] is expected");
  CHECK_THROWS(f.store->set("w", w.data(), DataType::f16, {kN, kK}), "float16");
  CHECK_THROWS(f.store->set("v", nullptr, DataType::f16, {kN, kK}), "weight 'v' has no data");
  CHECK_THROWS(f.store->info("u"), "weight 'u' is not set");
}

TEST_MAIN()
