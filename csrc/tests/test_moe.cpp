// SPDX-License-Identifier: Apache-2.0
// The kernels of mixture of experts: products of groups against products of single matrices, routing against its
// definition, and invalid data, which must be reported and not used.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/engine/program.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/moe.h"
#include "cpu_runtime.h"
#include "graph_builder.h"
#include "kernel_testing.h"

using namespace atb_core;
using namespace atb_core::test;
using cpu::PackedWeight;
using Ints = std::vector<int64_t>;

namespace {

// A weight [count, n, k] packed for a level.
struct Packed {
  Buffer memory;
  PackedWeight weight;

  Packed(Isa isa, const Array& w) {
    const DataType dtype = w.view().dtype;
    const int64_t count = w.view().dim(0), n = w.view().dim(1), k = w.view().dim(2);
    const size_t one = cpu::packed_bytes(isa, dtype, n, k), source = static_cast<size_t>(n * k) * itemsize(dtype);
    memory = Buffer(static_cast<size_t>(count) * one);
    weight = {dtype, n, k, memory.data(), count};
    for (int64_t i = 0; i < count; ++i) {
      cpu::pack(isa, w.view().as<std::byte>() + static_cast<size_t>(i) * source, dtype, n, k, false,
                memory.data() + static_cast<size_t>(i) * one, 0, cpu::packed_blocks(n));
    }
  }
};

struct Problem {
  Array x, w, bias, ends;
  int64_t m, n, k;

  Problem(DataType dtype, Ints counts, int64_t n_, int64_t k_)
      : m(std::accumulate(counts.begin(), counts.end(), int64_t{0})), n(n_), k(k_) {
    const auto groups = static_cast<int64_t>(counts.size());
    x = random_array(dtype, {m, k}, 1);
    w = random_array(dtype, {groups, n, k}, 2);
    bias = random_array(dtype, {groups, n}, 3);
    ends = Array(DataType::i64, {groups});
    std::partial_sum(counts.begin(), counts.end(), counts.begin());
    ends.fill([&](int64_t i) { return static_cast<double>(counts[static_cast<size_t>(i)]); });
  }

  cpu::GroupedLinearArgs args(const PackedWeight& weight, const Array& out) const {
    return {.x = x.view().data,
            .m = m,
            .ends = ends.view().as<int64_t>(),
            .weight = weight,
            .bias = bias.view().data,
            .bias_dtype = bias.view().dtype,
            .out = out.view().data,
            .out_dtype = out.view().dtype};
  }

  Array grouped(Isa isa, int threads) const {
    const Packed packed(isa, w);
    Array out(x.view().dtype, {m, n});
    const auto [shared, own] = cpu::grouped_linear_scratch(isa, x.view().dtype, m, k);
    const auto error = on_threads(threads, {shared, own}, [&](const Worker& worker) {
      cpu::grouped_linear(isa, args(packed.weight, out), worker);
    });
    CHECK(!error);
    CHECK(out.guards_intact());
    return out;
  }

  // Each row alone, in a linear() with its matrix.
  Array row_by_row(Isa isa) const {
    const Packed packed(isa, w);
    Array out(x.view().dtype, {m, n});
    const size_t item = itemsize(x.view().dtype);
    const auto [shared, own] = cpu::linear_scratch(isa, x.view().dtype, 1, k);
    for (int64_t row = 0, group = 0; row < m; ++row) {
      while (ends.view().as<int64_t>()[group] <= row) ++group;
      const cpu::LinearPart part{packed.weight.matrix(group),
                                 0,
                                 n,
                                 bias.view().as<std::byte>() + static_cast<size_t>(group * n) * item,
                                 bias.view().dtype,
                                 out.view().as<std::byte>() + static_cast<size_t>(row * n) * item,
                                 out.view().dtype,
                                 n};
      const void* from = x.view().as<std::byte>() + static_cast<size_t>(row * k) * item;
      on_threads(1, {shared, own},
                 [&](const Worker& worker) { cpu::linear(isa, {from, x.view().dtype, 1, k, k, {&part, 1}}, worker); });
    }
    return out;
  }
};

void check_groups(DataType dtype, const Ints& counts, int64_t n, int64_t k) {
  const Problem p(dtype, counts, n, k);
  const Array expected = p.row_by_row(Isa::portable);
  for (Isa isa : cpu::supported_isas()) {
    for (int threads : {1, 2, 3}) CHECK(p.grouped(isa, threads).same_bits(expected));
  }
}

}  // namespace

TEST(a_row_in_a_group_has_the_bits_it_has_alone) {
  for (DataType dtype : kFloats) {
    check_groups(dtype, {1}, 16, 32);
    check_groups(dtype, {0, 3, 0, 1, 5, 0}, 33, 70);
    check_groups(dtype, {0, 0, 0, 7}, 40, 64);
    check_groups(dtype, {17, 1, 40, 33, 16, 2}, 70, 100);
    check_groups(dtype, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 129, 257);
  }
}

TEST(large_groups_have_the_same_bits) {
  check_groups(DataType::bf16, {300, 0, 541, 20}, 96, 300);
  check_groups(DataType::f32, {300, 7}, 40, 200);
}

// More rows than one round prepares, and groups with few rows between groups with many.
TEST(groups_in_rounds_have_the_same_bits) {
  const int64_t k = 1 << 16;
  const Problem p(DataType::bf16, {60, 1, 150, 1, 61}, 2, k);
  const Array expected = p.row_by_row(Isa::portable);
  for (Isa isa : cpu::supported_isas()) {
    CHECK(cpu::grouped_linear_scratch(isa, DataType::bf16, p.m, k).shared < static_cast<size_t>(p.m * k) * 2);
    for (int threads : {1, 3}) CHECK(p.grouped(isa, threads).same_bits(expected));
  }
}

TEST(nothing_at_all_is_a_product_too) {
  for (Isa isa : cpu::supported_isas()) {
    CHECK(Problem(DataType::bf16, {0, 0}, 16, 32).grouped(isa, 2).numel() == 0);
    const Array empty = Problem(DataType::bf16, {2, 1}, 20, 0).grouped(isa, 2);  // the bias alone
    CHECK(empty.same_bits(Problem(DataType::bf16, {2, 1}, 20, 0).row_by_row(Isa::portable)));
  }
}

TEST(groups_must_fit_the_rows) {
  const auto check = [](const Ints& ends) {
    return on_threads(2, {}, [&](const Worker& worker) {
      const bool fits = cpu::groups_fit(ends.data(), static_cast<int64_t>(ends.size()), 4, worker);
      CHECK(fits == !worker.error->failed());
    });
  };
  CHECK(!check({0, 4, 4}));
  CHECK(check({3, 2, 4})->position == 1);
  CHECK(check({-1, 4, 4})->position == 0);
  CHECK(check({0, int64_t{1} << 40, 4})->value == int64_t{1} << 40);
  CHECK(check({1, 2, 3})->limit == 4);
  CHECK(check({})->value == 0);
}

TEST(topk_softmax_gives_the_largest_and_their_probabilities) {
  for (DataType dtype : kFloats) {
    for (const bool normalize : {false, true}) {
      const int64_t tokens = 9, experts = 60, k = 18;
      const Array x = random_array(dtype, {tokens, experts}, 5, 3.0);
      Array weights(DataType::f32, {tokens, k}), indices(DataType::i32, {tokens, k}), rows(DataType::i32, {tokens, k});
      const cpu::TopkSoftmaxArgs args{x, weights, indices, rows, normalize};
      run_everywhere(&KernelTable::topk_softmax, args, {&weights, &indices, &rows}, cpu::topk_softmax_scratch(args));
      for (int64_t t = 0; t < tokens; ++t) {
        std::vector<int64_t> order(experts);
        std::iota(order.begin(), order.end(), int64_t{0});
        std::stable_sort(order.begin(), order.end(),
                         [&](int64_t a, int64_t b) { return x.at(t * experts + a) > x.at(t * experts + b); });
        double sum = 0;
        for (int64_t j = 0; j < (normalize ? k : experts); ++j) {
          sum += std::exp(x.at(t * experts + order[static_cast<size_t>(j)]) - x.at(t * experts + order[0]));
        }
        for (int64_t j = 0; j < k; ++j) {
          const int64_t expert = order[static_cast<size_t>(j)], at = t * k + j;
          CHECK(indices.at(at) == static_cast<double>(expert));
          CHECK(rows.at(at) == static_cast<double>(j * tokens + t));
          const double expected = std::exp(x.at(t * experts + expert) - x.at(t * experts + order[0])) / sum;
          CHECK(std::fabs(weights.at(at) - expected) <= 1e-6 * expected);
        }
      }
    }
  }
}

TEST(equal_logits_choose_the_first_experts_and_nan_is_the_largest) {
  Array x(DataType::f32, {2, 20}), weights(DataType::f32, {2, 3});
  Array indices(DataType::i32, {2, 3}), rows(DataType::i32, {2, 3});
  x.fill([](int64_t i) { return i == 33 ? NAN : 0.0; });
  const cpu::TopkSoftmaxArgs args{x, weights, indices, rows};
  run_everywhere(&KernelTable::topk_softmax, args, {&weights, &indices, &rows}, cpu::topk_softmax_scratch(args));
  CHECK(indices.at(0) == 0 && indices.at(1) == 1 && indices.at(2) == 2);
  CHECK(indices.at(3) == 13 && indices.at(4) == 0 && indices.at(5) == 1);
  CHECK(std::isnan(weights.at(3)));
}

TEST(routing_groups_rows_by_expert_in_the_order_of_tokens) {
  const int64_t tokens = 5, k = 2, experts = 6, h = 7;
  const Array x = random_array(DataType::f32, {tokens, h}, 1);
  const Array chosen = int_array({tokens, k}, {3, 0, 0, 5, 3, 5, 5, 3, 0, 0});
  for (int threads : {1, 2, 3, 7}) {
    Array rows(DataType::f32, {tokens * k, h}), places(DataType::i32, {tokens * k}), ends(DataType::i64, {experts});
    const cpu::InitRoutingArgs args{x, chosen, rows, places, ends};
    CHECK(!on_threads(threads, cpu::init_routing_scratch(args), [&](const Worker& w) { cpu::init_routing(args, w); }));
    CHECK(rows.guards_intact() && places.guards_intact() && ends.guards_intact());
    const std::vector<int64_t> expected_ends = {4, 4, 4, 7, 7, 10}, expected = {4, 0, 1, 7, 5, 8, 9, 6, 2, 3};
    for (int64_t e = 0; e < experts; ++e)
      CHECK(ends.at(e) == static_cast<double>(expected_ends[static_cast<size_t>(e)]));
    for (int64_t i = 0; i < tokens * k; ++i) {
      CHECK(places.at(i) == static_cast<double>(expected[static_cast<size_t>(i)]));
      CHECK(rows.same_bits(expected[static_cast<size_t>(i)] * h, x, i / k * h, h));
    }
  }
}

TEST(an_expert_that_does_not_exist_is_reported_and_nothing_is_written) {
  const Array x = random_array(DataType::bf16, {3, 4}, 1);
  for (int bad : {-1, 2, 1 << 30}) {
    const Array chosen = int_array({3, 1}, {1, 0, bad});
    for (int threads : {1, 3}) {
      Array rows(DataType::bf16, {3, 4}), places(DataType::i32, {3}), ends(DataType::i64, {2});
      const Array before = places;
      const cpu::InitRoutingArgs args{x, chosen, rows, places, ends};
      const auto error =
          on_threads(threads, cpu::init_routing_scratch(args), [&](const Worker& w) { cpu::init_routing(args, w); });
      CHECK(error && error->position == 2 && error->value == bad && error->limit == 2);
      CHECK(places.same_bits(before));
    }
  }
}

TEST(unpermute_adds_the_weighted_rows_of_each_token) {
  for (DataType dtype : kFloats) {
    for (DataType weight : {DataType::f32, dtype}) {
      const int64_t tokens = 3, k = 19, h = 600;
      const Array x = random_array(dtype, {tokens * k, h}, 1), probs = random_array(weight, {tokens, k}, 2);
      Array places(DataType::i32, {tokens * k}), out(dtype, {tokens, h});
      places.fill([&](int64_t i) { return static_cast<double>((i * 7 + 3) % (tokens * k)); });
      const cpu::TokenUnpermuteArgs args{x, places, probs, out};
      run_everywhere(&KernelTable::token_unpermute, args, {&out}, cpu::token_unpermute_scratch(args));
      check_close(
          out,
          [&](int64_t i) {
            double sum = 0;
            for (int64_t j = 0; j < k; ++j) {
              const int64_t choice = i / h * k + j;
              sum += probs.at(choice) * x.at(static_cast<int64_t>(places.at(choice)) * h + i % h);
            }
            return sum;
          },
          k, k);
    }
  }
}

TEST(a_row_that_does_not_exist_is_reported_and_not_read) {
  const Array x = random_array(DataType::f32, {4, 8}, 1), probs = random_array(DataType::f32, {2, 2}, 2);
  for (int bad : {-1, 4}) {
    const Array places = int_array({4}, {0, 1, 2, bad});
    Array out(DataType::f32, {2, 8});
    const cpu::TokenUnpermuteArgs args{x, places, probs, out};
    for (Isa isa : cpu::supported_isas()) {
      const auto error = run(isa, 2, &KernelTable::token_unpermute, args, cpu::token_unpermute_scratch(args));
      CHECK(error && error->position == 3 && error->value == bad && error->limit == 4);
    }
  }
}

namespace {

constexpr int64_t kGroups = 3, kN = 20, kK = 40;

// y = x times the matrices of "w", [kGroups, kN, kK] or [kGroups, kK, kN].
GraphSpec product(bool transpose_b, TensorKind kind = TensorKind::weight) {
  GraphBuilder b;
  const int x = b.add("x", TensorKind::input, Ints{4, kK});
  const int w = b.add("w", kind, transpose_b ? Ints{kGroups, kN, kK} : Ints{kGroups, kK, kN});
  const int ends = b.add("ends", TensorKind::input, Ints{kGroups}, DataType::i64);
  b.node("GroupedMatmul", {{"transpose_b", transpose_b}}, {x, w, ends}, {b.add("y", TensorKind::output, Ints{4, kN})});
  return b.spec;
}

struct Product {
  std::shared_ptr<Runtime> runtime = make_runtime();
  std::shared_ptr<WeightStore> store = std::make_shared<WeightStore>(runtime);
  Array x = random_array(DataType::f32, {4, kK}, 1), w = random_array(DataType::f32, {kGroups, kN, kK}, 2);
  Ints ends = {1, 1, 4};

  // w as [kGroups, kK, kN].
  Array turned() const {
    Array t(DataType::f32, {kGroups, kK, kN});
    t.fill([&](int64_t i) { return w.at((i / (kK * kN) * kN + i % kN) * kK + i / kN % kK); });
    return t;
  }
  std::vector<float> run(Program& program, const void* weight = nullptr) {
    std::vector<float> y(4 * kN);
    std::vector<Argument> arguments = {{program.external("x"), x.view().data, {4, kK}},
                                       {program.external("ends"), ends.data(), {kGroups}},
                                       {program.external("y"), y.data(), {4, kN}}};
    if (weight != nullptr) {
      arguments.push_back({program.external("w"), const_cast<void*>(weight), {kGroups, kN, kK}});
    }
    program.run(arguments);
    return y;
  }
};

}  // namespace

TEST(expert_weights_are_packed_once_and_every_way_to_give_them_is_the_same) {
  Product p;
  Program packed(p.runtime, p.store, product(true));
  p.store->set("w", p.w.view().data, DataType::f32, {kGroups, kN, kK});
  CHECK(p.store->info("w").packed);
  CHECK(p.store->bytes() == kGroups * cpu::packed_bytes(p.runtime->isa(), DataType::f32, kN, kK));
  const std::vector<float> expected = p.run(packed);

  const auto turned_store = std::make_shared<WeightStore>(p.runtime);
  Program turned(p.runtime, turned_store, product(false));
  turned_store->set("w", p.turned().view().data, DataType::f32, {kGroups, kK, kN});
  CHECK(turned_store->info("w").packed);
  CHECK(p.run(turned) == expected);

  Program input(p.runtime, p.store, product(true, TensorKind::input));
  CHECK(p.run(input, p.w.view().data) == expected);
}

TEST(expert_weights_that_another_op_needs_plain_are_unpacked_and_still_multiply) {
  for (const bool transpose_b : {true, false}) {
    Product p;
    const Array content = transpose_b ? p.w : p.turned();
    const Ints shape = transpose_b ? Ints{kGroups, kN, kK} : Ints{kGroups, kK, kN};
    Program program(p.runtime, p.store, product(transpose_b));
    p.store->set("w", content.view().data, DataType::f32, shape);
    const std::vector<float> expected = p.run(program);
    GraphBuilder b;
    const int w = b.add("w", TensorKind::weight, shape), y = b.add("y", TensorKind::output, shape);
    b.node("Elewise", elewise("ELEWISE_NEG"), {w}, {y});
    Program negation(p.runtime, p.store, b.spec);
    CHECK(!p.store->info("w").packed);
    std::vector<float> negative(static_cast<size_t>(content.numel()));
    negation.run({{negation.external("y"), negative.data(), shape}});
    for (int64_t i = 0; i < content.numel(); ++i) CHECK(negative[static_cast<size_t>(i)] == -content.at(i));
    CHECK(p.run(program) == expected);
  }
}

TEST(expert_weights_can_be_set_expert_by_expert) {
  Product p;
  Program program(p.runtime, p.store, product(true));
  p.store->set("w", p.w.view().data, DataType::f32, {kGroups, kN, kK});
  const std::vector<float> expected = p.run(program);
  const auto part = [&](int64_t begin, int64_t count) {
    p.store->set_part("w", begin, p.w.view().as<float>() + begin * kN * kK, DataType::f32, {count, kN, kK}, kGroups);
  };
  part(0, 1);
  CHECK(!p.store->contains("w"));
  CHECK_THROWS(p.run(program), "weight 'w' has not been set");
  CHECK_THROWS(part(2, 1), "begins at 2, but the next one has to begin at 1");
  part(1, 2);
  CHECK(p.store->contains("w"));
  CHECK(p.store->bytes() == kGroups * cpu::packed_bytes(p.runtime->isa(), DataType::f32, kN, kK));
  CHECK(p.run(program) == expected);
  CHECK_THROWS(part(2, 1), "begins at 2, but the next one has to begin at 0");
  CHECK_THROWS(part(1, 3), "is no part of weight 'w', which has 3 rows");
  CHECK_THROWS(p.store->set_part("w", 0, p.w.view().data, DataType::f32, {1, kN, kK}, 4), "float32[3, 20, 40] was set");
}

TEST(a_plain_weight_can_be_set_in_parts_and_a_matrix_of_a_linear_cannot) {
  Product p;
  GraphBuilder b;
  const int x = b.add("x", TensorKind::input, Ints{4, kK}), w = b.add("w", TensorKind::weight, Ints{kN, kK});
  const int v = b.add("v", TensorKind::weight, Ints{kN});
  const int y = b.add("y", TensorKind::internal, Ints{4, kN}), z = b.add("z", TensorKind::output, Ints{4, kN});
  b.node("Linear", {}, {x, w}, {y});
  b.node("Elewise", elewise("ELEWISE_ADD"), {y, v}, {z});
  Program program(p.runtime, p.store, b.spec);
  p.store->set_part("v", 0, p.w.view().data, DataType::f32, {15}, kN);
  p.store->set_part("v", 15, p.w.view().as<float>() + 15, DataType::f32, {5}, kN);
  CHECK(p.store->contains("v"));
  CHECK_THROWS(p.store->set_part("w", 0, p.w.view().data, DataType::f32, {10, kK}, kN), "set as a whole");
  p.store->set_part("w", 0, p.w.view().data, DataType::f32, {kN, kK}, kN);
  const Array zero(DataType::f32, {4, kK});
  std::memset(zero.view().data, 0, zero.view().bytes());
  std::vector<float> out(4 * kN);
  program.run({{program.external("x"), zero.view().data, {4, kK}}, {program.external("z"), out.data(), {4, kN}}});
  for (int64_t i = 0; i < 4 * kN; ++i) CHECK(out[static_cast<size_t>(i)] == static_cast<float>(p.w.at(i % kN)));
}

TEST(groups_that_do_not_fit_are_an_error_of_the_run) {
  Product p;
  Program program(p.runtime, p.store, product(true));
  Program input(p.runtime, p.store, product(true, TensorKind::input));
  p.store->set("w", p.w.view().data, DataType::f32, {kGroups, kN, kK});
  for (const Ints& ends : {Ints{2, 1, 4}, Ints{1, 2, 3}, Ints{1, 2, int64_t{1} << 40}, Ints{-5, 2, 4}}) {
    p.ends = ends;
    CHECK_THROWS(p.run(program), "group_list must");
    CHECK_THROWS(p.run(input, p.w.view().data), "group_list must");
  }
}

TEST_MAIN()
