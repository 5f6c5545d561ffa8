// SPDX-License-Identifier: Apache-2.0
// Programs on the simulated device: places of tensors, copies, and messages of errors.
#include <algorithm>

#include "atb_device.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

constexpr uint16_t kOne = 0x3C00, kTwo = 0x4000;

// Two caches [1, 16, 1, 16] into which new rows of keys and values are written; y is a copy of the keys.
GraphSpec cache_writer() {
  GraphBuilder b({"n"});
  const SymbolicShape rows{b.dim(0), DimExpr(int64_t{1}), DimExpr(int64_t{16})};
  const int k = b.add("k", kInput, rows, DataType::f16), v = b.add("v", kInput, rows, DataType::f16);
  const int keys = b.add("keys", kInput, Ints{1, 16, 1, 16}, DataType::f16);
  const int values = b.add("values", kInput, Ints{1, 16, 1, 16}, DataType::f16);
  const int slots = b.add("slots", kInput, SymbolicShape{b.dim(0)}, DataType::i32);
  const int y = b.add("y", kOutput, rows, DataType::f16);
  b.node("ReshapeAndCache", {}, {k, v, keys, values, slots}, {});
  b.node("Elewise", elewise("ELEWISE_ADD"), {k, k}, {y});
  return b.spec;
}

std::string name_of(int weight) { return std::string("w").append(std::to_string(weight)); }

// y = x + w0 + w1 + ...
GraphSpec sum_of_weights(int count) {
  GraphBuilder b;
  int at = b.add("x", kInput, Ints{4});
  for (int i = 0; i < count; ++i) {
    const int weight = b.add(name_of(i), kWeight, Ints{4});
    const bool last = i == count - 1;
    const int next = b.add(last ? "y" : "", last ? kOutput : kInternal, Ints{4});
    b.node("Elewise", elewise("ELEWISE_ADD"), {at, weight}, {next});
    at = next;
  }
  return b.spec;
}

}  // namespace

TEST(a_chain_runs_for_every_size_and_reuses_memory) {
  Engine engine(doublings(10));
  for (int64_t n : {1, 3, 100, 3}) CHECK(doubles(engine, 10, n));
  CHECK(engine.program->num_plans() == 3);
  const DeviceProgram::PlanInfo info = engine.program->plan_info();
  // Copies of input and output, and two intermediate values at a time.
  CHECK(info.segments == 10 && info.arena_bytes == 3 * 64);
}

TEST(plans_that_were_not_used_for_long_are_dropped) {
  Engine engine(doublings(1));
  for (int64_t n = 1; n <= 100; ++n) CHECK(doubles(engine, 1, n));
  CHECK(engine.program->num_plans() == DeviceProgram::kMaxPlans);
  CHECK(doubles(engine, 1, 1) && engine.program->num_plans() == DeviceProgram::kMaxPlans);
}

TEST(working_memory_grows_with_what_it_has_to_hold_and_stays) {
  Engine engine(doublings(3), {}, {0, 0, 0});
  CHECK(doubles(engine, 3, 10));
  const size_t small = engine.device().workspace_bytes();
  CHECK(doubles(engine, 3, 1000) && engine.device().workspace_bytes() > small);
  const Alive before = alive();
  CHECK(doubles(engine, 3, 10) && doubles(engine, 3, 1000) && alive() == before);
}

TEST(nodes_of_one_number_are_one_operation) {
  const uint64_t creates = sim::counters().creates;
  Engine engine(doublings(4), {}, {0, 0, 1, 1});
  const uint64_t launches = sim::counters().launches, executes = sim::counters().executes;
  CHECK(doubles(engine, 4));
  CHECK(sim::counters().launches == launches + 4 && sim::counters().executes == executes + 2);
  CHECK(sim::counters().creates > creates);
}

TEST(equal_segments_share_one_operation_unless_a_second_thread_launches) {
  for (bool async : {false, true}) {
    Engine engine(doublings(8), {.execute_async = async});
    CHECK(doubles(engine, 8));
    const DeviceProgram::PlanInfo info = engine.program->plan_info();
    CHECK(info.segments == 8 && info.operations == (async ? 8u : 1u));
  }
}

TEST(views_move_nothing_and_outputs_may_be_views) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{2, 6}), sum = b.add("", kInternal, Ints{2, 6});
  const int flat = b.add("", kInternal, Ints{12}), more = b.add("more", kOutput, Ints{12});
  const int view = b.add("view", kOutput, Ints{3, 4}), again = b.add("again", kOutput, Ints{12});
  const int same = b.add("same", kOutput, Ints{12});
  b.node("Elewise", elewise("ELEWISE_ADD"), {x, x}, {sum});
  b.node("Reshape", {}, {sum}, {flat});
  b.node("Elewise", elewise("ELEWISE_ADD"), {flat, flat}, {more});
  b.node("Reshape", {}, {sum}, {view});
  b.node("Reshape", {}, {flat}, {again});
  b.node("Reshape", {}, {x}, {same});
  for (const Numbers& numbers : {Numbers{}, Numbers{0, 0, 0, 0, 0, 0}}) {
    Engine engine(b.spec, {}, numbers);
    Floats in(12), out_more(12), out_view(12), out_again(12), out_same(12);
    std::iota(in.begin(), in.end(), 0.0f);
    const sim::Counters before = sim::counters();
    engine.program->run({argument(x, in, {2, 6}), argument(more, out_more, {12}), argument(view, out_view, {3, 4}),
                         argument(again, out_again, {12}), argument(same, out_same, {12})});
    CHECK(out_more[11] == 44 && out_view[11] == 22 && out_again == out_view && out_same == in);
    // The first view is made in place; the second one and that of the input are copies.
    CHECK(sim::counters().copies_d2d == before.copies_d2d + 2 && sim::counters().launches == before.launches + 2);
  }
}

TEST(inputs_of_the_host_that_are_written_come_back) {
  Engine engine(cache_writer());
  Halves k(2 * 16, kOne), v(2 * 16, kTwo), keys(256), values(256), y(2 * 16);
  std::vector<int32_t> slots = {3, 15};
  engine.program->run({argument(0, k, {2, 1, 16}), argument(1, v, {2, 1, 16}), argument(2, keys, {1, 16, 1, 16}),
                       argument(3, values, {1, 16, 1, 16}), argument(4, slots, {2}), argument(5, y, {2, 1, 16})});
  CHECK(keys[3 * 16] == kOne && keys[255] == kOne && keys[0] == 0 && std::count(keys.begin(), keys.end(), kOne) == 32);
  CHECK(values[3 * 16 + 15] == kTwo && values[14 * 16] == 0 && y[31] == kTwo);
}

TEST(tensors_of_the_device_are_used_where_they_are) {
  Engine engine(cache_writer());
  Halves k(16, kOne), v(16, kTwo), y(16);
  std::vector<int32_t> slots = {7};
  const auto allocate = [&](size_t bytes) {
    const auto lease = engine.device().lease();
    return engine.device().allocate(bytes, "a tensor");
  };
  const ascend::DeviceMemory caches = allocate(1024), out = allocate(32);
  engine.program->set({{2, caches.data(), {1, 16, 1, 16}, true},
                       {3, caches.data() + 512, {1, 16, 1, 16}, true},
                       {5, out.data(), {1, 1, 16}, true}});
  const sim::Counters before = sim::counters();
  engine.program->run({argument(0, k, {1, 1, 16}), argument(1, v, {1, 1, 16}), argument(4, slots, {1})});
  const auto* seen = static_cast<const uint16_t*>(sim::window(caches.data()));
  CHECK(seen[7 * 16] == kOne && seen[256 + 7 * 16] == kTwo);
  CHECK(static_cast<const uint16_t*>(sim::window(out.data()))[15] == kTwo);
  CHECK(sim::counters().copies_d2h == before.copies_d2h);
}

namespace {

// Attention of one head over 16 tokens with a triangle, on a device of this name.
struct Prefill {
  std::vector<int> inputs;
  int y = 0;
  Engine engine;

  explicit Prefill(const char* soc, bool computed = false) : engine(spec(soc, computed)) {}
  ~Prefill() { sim::set_soc("Ascend910B2"); }

  void run(Halves& q, Halves& k, Halves& v, const Argument& mask, Halves& out) {
    std::vector<int32_t> lengths = {16};
    const Ints rows{16, 1, 16};
    engine.program->run({argument(inputs[0], q, rows), argument(inputs[1], k, rows), argument(inputs[2], v, rows), mask,
                         argument(inputs[4], lengths, {1}), argument(y, out, rows)});
  }

 private:
  GraphSpec spec(const char* soc, bool computed) {
    sim::set_soc(soc);
    GraphBuilder b({"n"});
    const SymbolicShape heads{b.dim(0), DimExpr(int64_t{1}), DimExpr(int64_t{16})};
    for (const char* name : {"q", "k", "v"}) inputs.push_back(b.add(name, kInput, heads, DataType::f16));
    inputs.push_back(b.add("mask", kInput, Ints{128, 128}, DataType::f16));
    inputs.push_back(b.add("lengths", kInput, Ints{1}, DataType::i32));
    y = b.add("y", kOutput, heads, DataType::f16);
    std::vector<int> operands = inputs;
    if (computed) {
      operands[3] = b.add("twice", kInternal, Ints{128, 128}, DataType::f16);
      b.node("Elewise", {{"elewise_type", std::string("ELEWISE_MULS")}, {"var_attr", 2.0}}, {inputs[3]}, {operands[3]});
    }
    b.node("SelfAttention",
           {{"head_num", int64_t{1}},
            {"kv_head_num", int64_t{1}},
            {"is_triu_mask", true},
            {"mask_type", std::string("MASK_TYPE_NORM")}},
           operands, {y});
    return b.spec;
  }
};

}  // namespace

TEST(a_mask_that_has_to_be_in_blocks_comes_from_the_host) {
  Prefill prefill("Ascend310P3");
  Halves q(256, kOne), k(256, kOne), v(256, kTwo), mask(128 * 128, 0), out(256);
  const Argument given = argument(prefill.inputs[3], mask, {128, 128});
  Argument there = given;
  there.on_device = true;
  CHECK_THROWS(prefill.run(q, k, v, there, out),
               "input 'mask' lies on the device in rows, and ATB takes it in FRACTAL_NZ");
  prefill.run(q, k, v, given, out);
  CHECK(out == v);
}

TEST(a_mask_that_has_to_hold_ones_may_lie_on_the_device) {
  Prefill prefill("Ascend910B2");
  Halves q(256, kOne), k(256, kOne), v(256, kTwo), mask(128 * 128, 0xFC00), out(256);
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 128 > i / 128 ? mask[i] : uint16_t{0};
  for (size_t i = 0; i < 16; ++i) v[i] = kOne;
  ascend::Device& device = prefill.engine.device();
  const size_t bytes = mask.size() * sizeof mask[0];
  const ascend::DeviceMemory memory = [&] {
    const auto lease = device.lease();
    ascend::DeviceMemory made = device.allocate(bytes, "a mask");
    device.upload(made.data(), mask.data(), bytes);
    return made;
  }();
  for (int run = 0; run < 2; ++run) {
    prefill.run(q, k, v, {prefill.inputs[3], memory.data(), {128, 128}, true}, out);
    CHECK(out[0] == kOne && out[16] == 0x3E00);
  }
  // It is not changed itself, and a mask of the host takes its place.
  CHECK(static_cast<const uint16_t*>(sim::window(memory.data()))[1] == 0xFC00);
  Halves open(128 * 128, 0);
  prefill.run(q, k, v, argument(prefill.inputs[3], open, {128, 128}), out);
  CHECK(out[0] == out[16] && out[0] != kOne);
}

TEST(a_mask_that_has_to_hold_ones_is_no_result_of_the_network) {
  CHECK_THROWS(Prefill("Ascend910B2", true), "has to be an input of the network and not be computed in it");
  sim::set_soc("Ascend910B2");
}

TEST(a_triangle_of_any_values_hides_later_tokens_and_large_products_do_not_overflow) {
  constexpr uint16_t kLarge = 0x5800, kInfinite = 0xFC00;  // 128 and -infinity
  // 16 * 128 * 128 is 262144, more than float16 holds.
  Halves q(256, kLarge), k(256, kLarge);
  Halves v(256), out(256);
  for (size_t i = 0; i < 256; ++i) v[i] = i < 16 ? kOne : kTwo;  // the first token has another value
  for (uint16_t hidden : {kInfinite, kOne}) {
    Halves mask(128 * 128, 0);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 128 > i / 128 ? hidden : uint16_t{0};
    Prefill prefill("Ascend910B2");
    prefill.run(q, k, v, argument(prefill.inputs[3], mask, {128, 128}), out);
    CHECK(out[0] == kOne);     // the first token sees itself alone
    CHECK(out[16] == 0x3E00);  // the second the mean of 1 and 2
  }
}

TEST(constants_are_copied_once) {
  Engine engine(doublings(1));
  Floats x(8, 1), y(8), other(8, 3);
  engine.program->set_constants({argument(0, x, {2, 4})});
  engine.program->set({argument(1, y, {2, 4})});
  x.assign(8, 100);
  const sim::Counters before = sim::counters();
  for (int i = 0; i < 3; ++i) CHECK(engine.program->run({}) && y == Floats(8, 2));
  CHECK(sim::counters().copies_h2d == before.copies_h2d);
  engine.program->set_constants({argument(0, other, {2, 4})});
  CHECK(engine.program->run({}) && y == Floats(8, 6));
  CHECK(engine.program->run({argument(0, x, {2, 4})}) && y == Floats(8, 200));
}

TEST(a_constant_that_cannot_be_set_leaves_the_one_before) {
  Engine engine(doublings(1));
  Floats x(8, 1), y(8), other(8, 3);
  engine.program->set_constants({argument(0, x, {2, 4})});
  CHECK(engine.program->run({argument(1, y, {2, 4})}));
  const Alive before = alive();
  for (const char* call : {"aclrtMalloc", "aclrtMemcpy"}) {
    sim::inject(call, 0, 507000);
    CHECK(error_of([&] { engine.program->set_constants({argument(0, other, {2, 4})}); }) != "");
    CHECK(alive() == before && engine.program->run({}) && y == Floats(8, 2));
  }
  CHECK_THROWS(engine.program->set_constants({argument(1, y, {2, 4})}), "'y' is an output and cannot be constant");
  CHECK_THROWS(engine.program->set_constants({{0, other.data(), {2, 4}, true}}), "'x' lies on the device");
  CHECK_THROWS(engine.program->set_constants({argument(0, other, {-2, 4})}), "impossible shape");
  CHECK(engine.program->run({}) && y == Floats(8, 2));
}

TEST(the_shapes_of_outputs_can_be_asked) {
  Engine engine(doublings(1));
  Floats x(12);
  CHECK((engine.program->output_shapes({argument(0, x, {3, 4})}) == std::vector<Ints>{{3, 4}}));
  CHECK(engine.program->external("x") == 0 && engine.program->external("y") == 1);
  CHECK_THROWS(engine.program->external("z"), "no input or output 'z'");
}

TEST(segments_with_too_many_operands_are_split) {
  constexpr int kMany = 150;
  Engine engine(sum_of_weights(kMany), {}, Numbers(kMany, 0));
  Floats one(4, 1), x(4, 0), y(4);
  for (int i = 0; i < kMany; ++i) engine.weights->set(name_of(i), one.data(), DataType::f32, {4});
  engine.program->run({argument(0, x, {4}), argument(2 * kMany, y, {4})});
  CHECK(y == Floats(4, kMany) && engine.program->plan_info().segments == 4);
}

TEST(weights_that_were_not_set_are_named) {
  Engine engine(sum_of_weights(2));
  Floats one(4, 1), x(4, 0), y(4);
  const auto run = [&] { engine.program->run({argument(0, x, {4}), argument(4, y, {4})}); };
  CHECK_THROWS(run(), "weights 'w0', 'w1' have not been set");
  engine.weights->set("w0", one.data(), DataType::f32, {4});
  CHECK_THROWS(run(), "weight 'w1' has not been set");
  engine.weights->set("w1", one.data(), DataType::f32, {4});
  run();
  CHECK(y == Floats(4, 2));
  const Floats three(4, 3);
  engine.weights->set("w1", three.data(), DataType::f32, {4});
  run();
  CHECK(y == Floats(4, 4));
}

TEST(nothing_runs_with_wrong_arguments) {
  Engine engine(doublings(1));
  Floats x(8, 1), y(8, -1), none;
  const auto run = [&](const std::vector<Argument>& arguments) { engine.program->run(arguments); };
  CHECK_THROWS(run({argument(0, x, {2, 4})}), "output 'y' is missing");
  CHECK_THROWS(run({argument(0, x, {2, 4}), argument(1, y, {1, 4})}), "must be 2 (n = 2), not 1");
  CHECK_THROWS(run({argument(0, x, {2, 4}), argument(1, x, {2, 4})}), "share memory");
  CHECK_THROWS(run({argument(0, none, {0, 4}), argument(1, none, {0, 4})}), "'x' would be [0, 4]: ATB takes no");
  CHECK(y == Floats(8, -1) && doubles(engine, 1));
}

TEST(segment_numbers_are_one_for_each_node) {
  CHECK_THROWS(Engine(doublings(3), {}, {0, 1}), "2 segment numbers were given for 3 nodes");
}

TEST(a_run_can_be_interrupted_between_segments) {
  for (bool async : {false, true}) {
    Engine engine(doublings(5), {.execute_async = async});
    Floats x(8, 1), y(8, -1);
    int asked = 0;
    CHECK(!engine.program->run({argument(0, x, {2, 4}), argument(5, y, {2, 4})}, [&] { return ++asked == 3; }));
    CHECK(asked == 3 && y == Floats(8, -1) && doubles(engine, 5));
  }
}

TEST(a_second_thread_launches_with_the_same_result) {
  Engine engine(doublings(12), {.execute_async = true}, {0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 6});
  // Later segments need more workspace than earlier ones, whose launches may still be queued.
  for (int64_t n : {1, 7, 300, 5, 4000}) CHECK(doubles(engine, 12, n));
}

TEST(what_atb_refuses_is_told_with_operation_place_tensors_and_code) {
  GraphBuilder b({"n", "m"});
  const SymbolicShape rows{b.dim(0), DimExpr(int64_t{4})};
  const int x = b.add("x", kInput, rows), z = b.add("z", kInput, SymbolicShape{b.dim(1), DimExpr(int64_t{4})});
  const int both = b.add("", kInternal, rows), y = b.add("y", kOutput, rows);
  b.node("Elewise", elewise("ELEWISE_ADD"), {x, x}, {both});
  b.node("Elewise", elewise("ELEWISE_ADD"), {both, z}, {y});
  for (bool async : {false, true}) {
    Engine engine(b.spec, {.execute_async = async}, {0, 0});
    Floats in(12, 1), other(12, 1), out(12);
    const auto run = [&](int64_t m) {
      engine.program->run({argument(x, in, {2, 4}), argument(z, other, {m, 4}), argument(y, out, {2, 4})});
    };
    run(2);
    const Alive before = alive();
    const std::string message = error_of([&] { run(3); });
    CHECK(has(message, "ATB cannot prepare the operations of node0: ERROR_INVALID_TENSOR_DIM (8)"));
    CHECK(has(message, "it refuses Elewise, made of Elewise at node1, with ERROR_INVALID_TENSOR_DIM (8)"));
    CHECK(has(message, "its inputs: float32 [2, 4], float32 [3, 4]"));
    run(2);
    CHECK(out[0] == 3 && alive() == before);
  }
}

TEST(a_refusal_without_a_reason_is_told_with_the_tensors_of_the_segment) {
  for (bool async : {false, true}) {
    Engine engine(doublings(2), {.execute_async = async}, {0, 0});
    CHECK(doubles(engine, 2));
    sim::inject("Operation::Setup", 0, ::atb::ERROR_OUT_OF_HOST_MEMORY);
    std::string message = error_of([&] { doubles(engine, 2); });
    CHECK(has(message, "ATB cannot prepare the operations of node0: ERROR_OUT_OF_HOST_MEMORY (27)"));
    CHECK(has(message, "it takes each of its operations alone; the segment's inputs: float32 [2, 4]"));
    sim::inject("Operation::Execute", 0, 77);
    message = error_of([&] { doubles(engine, 2); });
    CHECK(has(message, "ATB cannot launch the operations of node0: a code that is not documented (77)"));
    CHECK(doubles(engine, 2));
  }
}

TEST(a_collective_operation_is_not_prepared_to_find_out_what_was_refused) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{4}), sum = b.add("", kInternal, Ints{4}), y = b.add("y", kOutput, Ints{4});
  b.node("AllReduce",
         {{"rank", int64_t{0}},
          {"rank_size", int64_t{1}},
          {"backend", std::string("lccl")},
          {"comm_mode", std::string("COMM_MULTI_THREAD")},
          {"comm_domain", std::string("1")},
          {"rank_table_file", std::string()},
          {"all_reduce_type", std::string("sum")}},
         {x}, {sum});
  b.node("Elewise", elewise("ELEWISE_ADD"), {sum, sum}, {y});
  Engine engine(b.spec, {}, {0, 0});
  Floats in(4, 1), out(4);
  sim::inject("Operation::Setup", 0, 3);
  sim::set_logging(true);
  CHECK_THROWS(engine.program->run({argument(x, in, {4}), argument(y, out, {4})}), "it takes each of its operations");
  const std::vector<std::string> calls = sim::call_log();
  sim::set_logging(false);
  const auto prepared = [](const std::string& call) { return call.starts_with("Operation::Setup"); };
  CHECK(std::count_if(calls.begin(), calls.end(), prepared) == 2);  // the segment, and Elewise alone
}

TEST(recorded_runs_have_a_time_on_the_stream_for_each_node_and_for_copies) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{12}), sum = b.add("", kInternal, Ints{12}), y = b.add("y", kOutput, Ints{3, 4});
  const int same = b.add("same", kOutput, Ints{3, 4}), more = b.add("more", kOutput, Ints{12});
  b.node("Elewise", elewise("ELEWISE_ADD"), {x, x}, {sum});
  b.node("Reshape", {}, {sum}, {y});
  b.node("Elewise", elewise("ELEWISE_ADD"), {sum, sum}, {more});
  b.node("Reshape", {}, {x}, {same});
  for (bool async : {false, true}) {
    Engine engine(b.spec, {.execute_async = async}, {0, 0, 0, 0});
    Floats in(12, 1), out_y(12), out_same(12), out_more(12);
    const std::vector<Argument> given = {argument(x, in, {12}), argument(y, out_y, {3, 4}),
                                         argument(same, out_same, {3, 4}), argument(more, out_more, {12})};
    const auto run = [&] {
      for (Floats* out : {&out_y, &out_same, &out_more}) std::fill(out->begin(), out->end(), 0.0f);
      CHECK(engine.program->run(given) && out_y[11] == 2 && out_same[11] == 1 && out_more[11] == 4);
    };
    run();
    const uint64_t events = sim::counters().live_events;
    CHECK(engine.program->take_runs().empty() && engine.program->plan_info().segments == 1);
    engine.program->set_recording(true);
    for (int i = 0; i < 2; ++i) run();
    CHECK(engine.program->plan_info().segments == 2 && sim::counters().live_events == events);
    const std::vector<RunTimes> runs = engine.program->take_runs();
    CHECK(runs.size() == 2 && runs[1].begin >= runs[0].end && engine.program->take_runs().empty());
    for (const RunTimes& times : runs) {
      CHECK((times.nodes == std::vector<int32_t>{0, 2, -1}) && times.times.size() == 3);
      int64_t last = times.begin;
      for (const StepTime& time : times.times) {
        CHECK(time.begin >= last && time.end > time.begin);
        last = time.end;
      }
      CHECK(times.end >= last);
    }
    run();
    engine.program->set_recording(false);
    run();
    CHECK(engine.program->plan_info().segments == 1 && engine.program->take_runs().empty());
  }
}

TEST(an_event_that_fails_is_told_by_name) {
  Engine engine(doublings(2));
  engine.program->set_recording(true);
  const std::pair<const char*, const char*> calls[] = {
      {"aclrtCreateEventWithFlag", "making an event for times of nodes failed: ACL reports error 507000"},
      {"aclrtRecordEvent", "recording an event for times of nodes failed: ACL reports error 507000"},
      {"aclrtEventElapsedTime", "reading the time of an event failed: ACL reports error 507000"}};
  for (const auto& [call, told] : calls) {
    for (uint64_t n : {0, 2}) {
      const Alive before = alive();
      sim::inject(call, n, 507000);
      CHECK_THROWS(doubles(engine, 2), told);
      CHECK(alive().events == before.events && doubles(engine, 2));
    }
  }
  sim::inject("aclrtDestroyEvent", 0, 507000);
  CHECK(doubles(engine, 2));
  CHECK_THROWS(doubles(engine, 2), "giving back an event failed: ACL reports error 507000");
  CHECK(doubles(engine, 2));
}

TEST(a_kernel_that_fails_is_told_when_it_is_waited_for) {
  for (bool async : {false, true}) {
    Engine engine(doublings(3), {.execute_async = async});
    for (uint64_t kernel : {0, 1, 2}) {
      sim::inject_async(kernel, 507015);
      const std::string message = error_of([&] { doubles(engine, 3); });
      CHECK(has(message, "an operation failed on the device: ACL reports error 507015"));
      CHECK(doubles(engine, 3));
    }
  }
}

TEST(with_launch_blocking_the_error_names_the_segment) {
  Engine engine(doublings(3), {.launch_blocking = true});
  sim::inject_async(1, 507015);
  CHECK(has(error_of([&] { doubles(engine, 3); }), "node1: an operation failed on the device"));
  CHECK(doubles(engine, 3));
}

TEST(a_device_without_memory_says_for_what_and_how_much_is_left) {
  Engine engine(doublings(2));
  CHECK(doubles(engine, 2));
  sim::set_memory(sim::counters().live_bytes + 4096);
  const std::string message = error_of([&] { doubles(engine, 2, 1 << 18); });
  CHECK(has(message, "device 0 (Ascend910B2) has no ") && has(message, "MiB for activations: "));
  CHECK(has(message, "MiB are free; ACL reports error 207001"));
  CHECK(doubles(engine, 2));
  sim::set_memory(uint64_t{64} << 30);
  CHECK(doubles(engine, 2, 1 << 18));
}

TEST(memory_that_cannot_be_given_back_is_told_by_the_next_call) {
  Engine engine(sum_of_weights(1));
  Floats one(4, 1), x(4, 0), y(4);
  const auto set = [&] { engine.weights->set("w0", one.data(), DataType::f32, {4}); };
  const auto run = [&] { engine.program->run({argument(0, x, {4}), argument(2, y, {4})}); };
  set();
  run();
  sim::inject("aclrtFree", 0, 507000);
  set();
  CHECK_THROWS(run(), "giving back device memory failed: ACL reports error 507000");
  run();
  CHECK(y == one);
}

TEST_MAIN()
