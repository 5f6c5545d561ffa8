// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <numeric>
#include <thread>

#include "check.h"
#include "cpu/engine/program.h"
#include "cpu_runtime.h"
#include "graph_builder.h"

using namespace atb_core;
using namespace atb_core::test;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

namespace {

constexpr TensorKind kInput = TensorKind::input, kOutput = TensorKind::output, kInternal = TensorKind::internal;

struct Engine {
  explicit Engine(GraphSpec spec, int threads = 2, double small_work = 0)
      : runtime(make_runtime(threads, small_work)),
        store(std::make_shared<WeightStore>(runtime)),
        program(runtime, store, std::move(spec)) {}
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<WeightStore> store;
  Program program;
};

// x -> 2x -> 4x -> ... `steps` doublings of [n, 4].
GraphSpec doublings(int steps) {
  GraphBuilder b({"n"});
  int at = b.add("x", kInput, SymbolicShape{b.dim(0), DimExpr(int64_t{4})});
  for (int i = 0; i < steps; ++i) {
    const bool last = i == steps - 1;
    const int next = b.add(last ? "y" : "", last ? kOutput : kInternal, SymbolicShape{b.dim(0), DimExpr(int64_t{4})});
    b.node("Elewise", elewise("ELEWISE_MULS", 2), {at}, {next});
    at = next;
  }
  return b.spec;
}

Argument argument(int id, Floats& data, Ints shape) { return {id, data.data(), std::move(shape)}; }

}  // namespace

TEST(a_chain_runs_for_every_size_and_reuses_memory) {
  Engine engine(doublings(10));
  for (int64_t n : {1, 3, 100, 3}) {
    Floats x(static_cast<size_t>(4 * n)), y(x.size());
    std::iota(x.begin(), x.end(), 1.0f);
    CHECK(engine.program.run({argument(0, x, {n, 4}), argument(10, y, {n, 4})}));
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == 1024 * x[i]);
    // Two intermediate values are alive at a time.
    CHECK(engine.program.plan_info().arena_bytes == 2 * align_up(x.size() * sizeof(float)));
  }
  CHECK(engine.program.num_plans() == 3);
}

TEST(the_number_of_plans_is_bounded) {
  Engine engine(doublings(1));
  for (int64_t n = 1; n <= 100; ++n) {
    Floats x(static_cast<size_t>(4 * n), 1), y(x.size());
    engine.program.run({argument(0, x, {n, 4}), argument(1, y, {n, 4})});
  }
  CHECK(engine.program.num_plans() == Program::kMaxPlans);
}

TEST(views_move_nothing) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{2, 6}), flat = b.add("", kInternal, Ints{12});
  const int front = b.add("", kInternal, Ints{6}), back = b.add("", kInternal, Ints{6}),
            y = b.add("y", kOutput, Ints{6});
  b.node("Reshape", {}, {x}, {flat});
  b.node("Split", {{"split_dim", int64_t{0}}, {"split_sizes", Ints{6, 6}}}, {flat}, {front, back});
  b.node("Elewise", elewise("ELEWISE_ADD"), {front, back}, {y});
  Engine engine(b.spec);
  Floats in(12), out(6);
  std::iota(in.begin(), in.end(), 0.0f);
  engine.program.run({argument(x, in, {2, 6}), argument(y, out, {6})});
  CHECK((out == Floats{6, 8, 10, 12, 14, 16}));
  CHECK(engine.program.plan_info().steps == 1);
  CHECK(engine.program.plan_info().arena_bytes == 0);
}

TEST(outputs_that_are_views_are_written_in_place_or_copied) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{2, 2}), sum = b.add("", kInternal, Ints{2, 2});
  const int whole = b.add("whole", kOutput, Ints{4}), row = b.add("row", kOutput, Ints{1, 2});
  const int same = b.add("same", kOutput, Ints{4});
  b.node("Elewise", elewise("ELEWISE_ADD"), {x, x}, {sum});
  b.node("Reshape", {}, {sum}, {whole});
  b.node("Slice", {{"offsets", Ints{1, 0}}, {"size", Ints{1, -1}}}, {sum}, {row});
  b.node("Reshape", {}, {x}, {same});
  Engine engine(b.spec);
  Floats in = {1, 2, 3, 4}, out_whole(4), out_row(2), out_same(4);
  engine.program.run({argument(x, in, {2, 2}), argument(whole, out_whole, {4}), argument(row, out_row, {1, 2}),
                      argument(same, out_same, {4})});
  CHECK((out_whole == Floats{2, 4, 6, 8}));
  CHECK((out_row == Floats{6, 8}));
  CHECK(out_same == in);
  CHECK(engine.program.plan_info().steps == 3);  // the sum and two copies
}

TEST(a_copy_stays_a_copy_when_the_original_is_written) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{2, 2}), old = b.add("", kInternal, Ints{1, 2});
  const int fresh = b.add("fresh", kInput, Ints{2, 2}), y = b.add("y", kOutput, Ints{1, 2});
  b.node("Slice", {{"offsets", Ints{0, 0}}, {"size", Ints{1, 2}}}, {x}, {old});
  b.node("Assign", {}, {fresh, x}, {});
  b.node("Elewise", elewise("ELEWISE_MULS", 1), {old}, {y});
  Engine engine(b.spec);
  Floats in = {1, 2, 3, 4}, next = {5, 6, 7, 8}, out(2);
  engine.program.run({argument(x, in, {2, 2}), argument(fresh, next, {2, 2}), argument(y, out, {1, 2})});
  CHECK((out == Floats{1, 2}));
  CHECK(in == next);
}

TEST(arguments_stay_until_they_are_given_again) {
  Engine engine(doublings(1));
  Floats x = {1, 2, 3, 4}, y(4), other = {5, 5, 5, 5};
  engine.program.set({argument(1, y, {1, 4})});
  engine.program.run({argument(0, x, {1, 4})});
  CHECK(y[3] == 8);
  engine.program.run({argument(0, other, {1, 4})});
  CHECK(y[3] == 10);
}

TEST(the_shapes_of_outputs_can_be_asked) {
  Engine engine(doublings(1));
  Floats x(12);
  CHECK((engine.program.output_shapes({argument(0, x, {3, 4})}) == std::vector<Ints>{{3, 4}}));
}

TEST(nothing_runs_with_wrong_arguments) {
  Engine engine(doublings(1));
  Floats x(8, 1), y(8, -1);
  CHECK_THROWS(engine.program.run({argument(0, x, {2, 4})}), "output 'y' is missing");
  CHECK_THROWS(engine.program.run({argument(0, x, {2, 4}), argument(1, y, {1, 4})}), "must be 2 (n = 2), not 1");
  CHECK_THROWS(engine.program.run({argument(0, x, {8})}), "must have 2 dimensions");
  CHECK_THROWS(engine.program.run({argument(0, x, {-2, 4})}), "impossible shape");
  CHECK_THROWS(engine.program.run({argument(7, x, {2, 4})}), "tensor 7");
  CHECK_THROWS(engine.program.run({{0, nullptr, {2, 4}}}), "has no data");
  CHECK_THROWS(engine.program.run({{0, reinterpret_cast<char*>(x.data()) + 1, {1, 4}}}), "not aligned");
  CHECK_THROWS(engine.program.run({argument(0, x, {2, 4}), argument(1, x, {2, 4})}), "share memory");
  CHECK(y == Floats(8, -1));
}

TEST(invalid_graphs_name_op_and_place) {
  const auto build = [](GraphBuilder& b) { Engine engine(b.spec); };
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{2, 4}), y = b.add("y", kOutput, Ints{2, 4});
  GraphBuilder unknown = b, attribute = b, type = b, count = b, order = b, twice = b, range = b, missing = b;
  unknown.node("Frobnicate", {}, {x}, {y});
  CHECK_THROWS(build(unknown), "Frobnicate at node0: this engine has no such op");
  attribute.node("RmsNorm", {{"eps", 1.0}}, {x, x}, {y});
  CHECK_THROWS(build(attribute), "RmsNorm at node0: attribute 'eps' is unknown");
  type.node("RmsNorm", {{"epsilon", std::string("1")}}, {x, x}, {y});
  CHECK_THROWS(build(type), "attribute 'epsilon' must be float, not str");
  count.node("RmsNorm", {}, {x}, {y});
  CHECK_THROWS(build(count), "it has 1 inputs, not 2");
  order.node("RmsNorm", {}, {y, x}, {y});
  CHECK_THROWS(build(order), "before it is made");
  twice.node("Elewise", elewise("ELEWISE_NEG"), {x}, {x});
  CHECK_THROWS(build(twice), "a second time");
  range.node("Elewise", elewise("ELEWISE_NEG"), {99}, {y});
  CHECK_THROWS(build(range), "unknown tensor 99");
  CHECK_THROWS(build(missing), "no node makes output 'y'");
}

TEST(shapes_that_do_not_fit_an_op_are_found_before_it_runs) {
  GraphBuilder b({"n"});
  const int x = b.add("x", kInput, SymbolicShape{b.dim(0)}),
            y = b.add("y", kOutput, SymbolicShape{DimExpr(int64_t{4})});
  b.node("Elewise", elewise("ELEWISE_NEG"), {x}, {y});
  Engine engine(b.spec);
  Floats in(5, 1), out(4, -1);
  CHECK_THROWS(engine.program.run({argument(x, in, {5}), argument(y, out, {4})}), "Elewise at node0 (n = 5)");
  CHECK(out == Floats(4, -1));
}

TEST(bad_data_is_an_error_that_names_op_and_value) {
  GraphBuilder b;
  const int table = b.add("table", kInput, Ints{3, 2}), ids = b.add("ids", kInput, Ints{2}, DataType::i32);
  const int rows = b.add("", kInternal, Ints{2, 2}), y = b.add("y", kOutput, Ints{2, 2});
  b.node("Gather", {}, {table, ids}, {rows});
  b.node("Elewise", elewise("ELEWISE_NEG"), {rows}, {y});
  for (const auto& [threads, small_work] : {std::pair{1, 0.0}, {2, 0.0}, {3, 0.0}, {3, 1e6}}) {
    Engine engine(b.spec, threads, small_work);
    Floats data(6, 1), out(4, 7);
    std::vector<int32_t> bad = {0, 3}, good = {0, 2};
    const std::vector<Argument> fixed = {argument(table, data, {3, 2}), argument(y, out, {2, 2})};
    engine.program.set(fixed);
    CHECK_THROWS(engine.program.run({{ids, bad.data(), {2}}}),
                 "Gather at node0: index out of range (value 3, position 1");
    CHECK(out == Floats(4, 7));
    CHECK(engine.program.run({{ids, good.data(), {2}}}));
    CHECK(out == Floats(4, -1));
  }
}

TEST(a_run_can_be_interrupted) {
  Engine engine(doublings(2000));
  const int64_t n = 1 << 17;  // long enough to be asked about
  Floats x(4 * n, 0), y(x.size(), 1);
  const auto arguments = std::vector<Argument>{argument(0, x, {n, 4}), argument(2000, y, {n, 4})};
  CHECK(engine.program.run(arguments));
  int asked = 0;
  bool finished = true;
  for (int i = 0; i < 50 && finished; ++i) finished = engine.program.run(arguments, [&] { return ++asked > 0; });
  CHECK(!finished && asked > 0);
  CHECK(engine.program.run(arguments, [] { return false; }));
}

TEST(a_run_in_slices_leaves_room_for_others_and_gives_the_same) {
  for (const int threads : {1, 2, 3}) {
    Engine engine(doublings(8), threads);
    Floats x(4, 3), y(4), other_x(4, 5), other_y(4);
    const auto run = engine.program.start({argument(0, x, {1, 4}), argument(8, y, {1, 4})});
    int slices = 1;
    for (; run->advance(0) == SlicedRun::Status::paused; ++slices) {
      CHECK(engine.program.run({argument(0, other_x, {1, 4}), argument(8, other_y, {1, 4})}));
      CHECK(other_y == Floats(4, 5 * 256));
    }
    CHECK(y == Floats(4, 3 * 256));
    CHECK(slices == 8);
    CHECK(engine.program.num_plans() == 1);
    CHECK_THROWS(run->advance(0), "this run has ended");
  }
}

TEST(a_slice_without_a_limit_ends_the_run) {
  Engine engine(doublings(8));
  Floats x(4, 3), y(4);
  const auto arguments = std::vector<Argument>{argument(0, x, {1, 4}), argument(8, y, {1, 4})};
  const auto run = engine.program.start(arguments);
  CHECK(run->advance(0) == SlicedRun::Status::paused);
  CHECK(run->advance(INT64_MAX) == SlicedRun::Status::done);
  CHECK(y == Floats(4, 3 * 256));
  // The plan is that of the next run with these sizes, whose arguments are these still.
  CHECK(engine.program.num_plans() == 1);
  y.assign(4, 0);
  CHECK(engine.program.run());
  CHECK(y == Floats(4, 3 * 256));
  CHECK(engine.program.num_plans() == 1);
}

TEST(a_slice_ends_before_a_node_that_would_take_too_long) {
  Engine engine(doublings(64));
  const int64_t n = 1 << 19;  // 8 MB: a node takes a millisecond or so
  Floats x(4 * n, 0), y(x.size(), 1);
  const auto run = engine.program.start({argument(0, x, {n, 4}), argument(64, y, {n, 4})});
  CHECK(run->advance(0) == SlicedRun::Status::paused);
  int slices = 0;
  while (run->advance(1) == SlicedRun::Status::paused) ++slices;
  CHECK(slices == 62);
}

TEST(runs_in_slices_that_are_given_up_or_interrupted) {
  Engine engine(doublings(2000));
  const int64_t n = 1 << 17;
  Floats x(4 * n, 0), y(x.size(), 1);
  const auto arguments = std::vector<Argument>{argument(0, x, {n, 4}), argument(2000, y, {n, 4})};
  engine.program.start(arguments)->advance(0);
  CHECK(engine.program.num_plans() == 0);
  const auto run = engine.program.start(arguments);
  int asked = 0;
  CHECK(run->advance(INT64_MAX, [&] { return ++asked > 0; }) == SlicedRun::Status::interrupted);
  CHECK(y[0] == 1);
  CHECK(run->advance(INT64_MAX) == SlicedRun::Status::done);
  CHECK(y[0] == 0);
}

TEST(threads_that_go_on_with_one_run_take_turns) {
  Engine engine(doublings(8));
  for (int round = 0; round < 50; ++round) {
    Floats x(4, 3), y(4);
    const auto run = engine.program.start({argument(0, x, {1, 4}), argument(8, y, {1, 4})});
    std::atomic<int> ended{0}, slices{0}, refused{0};
    const auto go_on = [&] {
      try {
        for (; run->advance(0) == SlicedRun::Status::paused; ++slices) continue;
        ++ended;
      } catch (const Error& error) {
        if (std::string(error.what()) == "this run has ended") ++refused;
      }
    };
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) callers.emplace_back(go_on);
    for (std::thread& caller : callers) caller.join();
    CHECK(slices == 7 && ended == 1 && refused == 2);
    CHECK(y == Floats(4, 3 * 256));
  }
}

TEST(a_slice_names_what_is_wrong_with_the_data) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{3, 4}), ids = b.add("ids", kInput, Ints{2}, DataType::i64);
  const int twice = b.add("", kInternal, Ints{3, 4}), y = b.add("y", kOutput, Ints{2, 4});
  b.node("Elewise", elewise("ELEWISE_MULS", 2), {x}, {twice});
  b.node("Gather", {{"axis", int64_t{0}}}, {twice, ids}, {y});
  Engine engine(b.spec);
  Floats data(12, 1), out(8);
  Ints bad{0, 3};
  const auto arguments =
      std::vector<Argument>{argument(x, data, {3, 4}), argument(y, out, {2, 4}), {ids, bad.data(), {2}}};
  const auto run = engine.program.start(arguments);
  // Integers are copied when the run begins.
  bad = {0, 0};
  CHECK(run->advance(0) == SlicedRun::Status::paused);
  CHECK_THROWS(run->advance(0), "Gather at node1: index out of range (value 3, position 1");
  CHECK_THROWS(run->advance(0), "this run has ended");
}

TEST(weights_are_not_set_between_slices) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{4}), w = b.add("w", TensorKind::weight, Ints{4});
  const int sum = b.add("", kInternal, Ints{4}), y = b.add("y", kOutput, Ints{4});
  b.node("Elewise", elewise("ELEWISE_ADD"), {x, w}, {sum});
  b.node("Elewise", elewise("ELEWISE_ADD"), {sum, w}, {y});
  Engine engine(b.spec);
  Floats in(4, 1), weight(4, 2), out(4);
  engine.store->set("w", weight.data(), DataType::f32, {4});
  const auto run = engine.program.start({argument(x, in, {4}), argument(y, out, {4})});
  CHECK(run->advance(0) == SlicedRun::Status::paused);
  engine.store->set("w", weight.data(), DataType::f32, {4});
  CHECK_THROWS(run->advance(0), "weights were set while a run was paused");
}

TEST(results_do_not_depend_on_the_number_of_threads) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{37, 130}), w = b.add("w", kInput, Ints{130}),
            y = b.add("y", kOutput, Ints{37, 130});
  b.node("RmsNorm", {{"epsilon", 1e-6}}, {x, w}, {y});
  Floats in(37 * 130), weight(130), first;
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>((i * 7919) % 1000) / 500 - 1;
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = 1 + static_cast<float>(i) / 130;
  for (int threads : {1, 2, 3, 5}) {
    Engine engine(b.spec, threads);
    Floats out(in.size());
    engine.program.run({argument(x, in, {37, 130}), argument(w, weight, {130}), argument(y, out, {37, 130})});
    if (threads == 1) first = out;
    CHECK(out == first);
  }
}

TEST(small_nodes_run_on_one_thread_between_large_ones) {
  GraphBuilder b({"n"});
  const SymbolicShape shape{b.dim(0)};
  const int x = b.add("x", kInput, shape), large = b.add("", kInternal, shape), cut = b.add("", kInternal, Ints{4});
  const int small = b.add("", kInternal, Ints{4}), y = b.add("y", kOutput, Ints{4}), z = b.add("z", kOutput, shape);
  b.node("Elewise", elewise("ELEWISE_NEG"), {x}, {large});
  b.node("Slice", {{"offsets", Ints{2}}, {"size", Ints{4}}}, {large}, {cut});
  b.node("Elewise", elewise("ELEWISE_MULS", 3), {cut}, {small});
  b.node("Elewise", elewise("ELEWISE_ADD"), {small, cut}, {y});
  b.node("Elewise", elewise("ELEWISE_MULS", 2), {large}, {z});
  Engine engine(b.spec, 3, 1024);
  for (int64_t n : {8, 5000}) {
    Floats in(static_cast<size_t>(n)), out_y(4), out_z(in.size());
    std::iota(in.begin(), in.end(), 0.0f);
    for (int round = 0; round < 20; ++round) {
      engine.program.run({argument(x, in, {n}), argument(y, out_y, {4}), argument(z, out_z, {n})});
      CHECK((out_y == Floats{-8, -12, -16, -20}));
      CHECK(out_z[2] == -4 && out_z.back() == -2 * in.back());
    }
  }
}

TEST(programs_of_one_runtime_run_from_several_threads) {
  const auto runtime = make_runtime(2);
  const auto store = std::make_shared<WeightStore>(runtime);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&, caller] {
      Program program(runtime, store, doublings(5));
      for (int round = 1; round <= 20; ++round) {
        Floats x(static_cast<size_t>(4 * round), static_cast<float>(caller + 1)), y(x.size());
        program.run({argument(0, x, {round, 4}), argument(5, y, {round, 4})});
        for (float value : y) wrong += value != static_cast<float>(32 * (caller + 1));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST(recorded_runs_have_the_times_of_every_step_and_thread) {
  Engine engine(doublings(3));
  Floats x(4, 1), y(4);
  engine.program.run({argument(0, x, {1, 4}), argument(3, y, {1, 4})});
  CHECK(engine.program.take_runs().empty());
  engine.program.set_recording(true);
  for (int i = 0; i < 2; ++i) engine.program.run();
  const auto runs = engine.program.take_runs();
  CHECK(runs.size() == 2 && runs[1].begin >= runs[0].end);
  CHECK((runs[0].nodes == std::vector<int32_t>{0, 1, 2}));
  CHECK(runs[0].times.size() % 3 == 0);
  int64_t last = runs[0].begin;
  for (size_t step = 0; step < 3; ++step) {
    const StepTime& time = runs[0].times[step];
    CHECK(time.begin >= last && time.end >= time.begin);
    last = time.end;
  }
  CHECK(runs[0].end >= last);
  CHECK(engine.program.take_runs().empty());
  engine.program.run();
  engine.program.set_recording(true);
  CHECK(engine.program.take_runs().empty());
}

TEST(a_run_in_slices_is_recorded_when_it_ends_if_that_is_still_wanted) {
  Engine engine(doublings(2));
  Floats x(4, 1), y(4);
  const auto arguments = std::vector<Argument>{argument(0, x, {1, 4}), argument(2, y, {1, 4})};
  for (const bool wanted : {true, false}) {
    engine.program.set_recording(true);
    const auto run = engine.program.start(arguments);
    CHECK(run->advance(0) == SlicedRun::Status::paused);
    engine.program.set_recording(wanted);
    CHECK(run->advance(0) == SlicedRun::Status::done);
    CHECK(engine.program.take_runs().size() == (wanted ? 1 : 0));
  }
}

TEST(only_the_latest_recorded_runs_are_kept) {
  Engine engine(doublings(1));
  Floats x(4, 1), y(4);
  engine.program.run({argument(0, x, {1, 4}), argument(1, y, {1, 4})});
  engine.program.set_recording(true);
  for (size_t i = 0; i < RunRecord::kMost + 1; ++i) engine.program.run();
  CHECK(engine.program.take_runs().size() == RunRecord::kMost);
}

TEST_MAIN()
