// SPDX-License-Identifier: Apache-2.0
// Kernels that are registered through the C ABI: their arguments, their errors, and their execution.
#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "cpu/engine/custom_op.h"
#include "cpu/engine/op.h"
#include "cpu/engine/program.h"
#include "cpu_runtime.h"
#include "graph_builder.h"

using namespace atb_core;
using namespace atb_core::test;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;

namespace {

constexpr TensorKind kInput = TensorKind::input, kOutput = TensorKind::output, kInternal = TensorKind::internal;

void add(const char* op, atb_kernel_function run, atb_kernel_function check = nullptr, std::vector<int> writes = {}) {
  register_kernel({op, ATB_KERNEL_ABI_VERSION, check, run, std::move(writes)});
}

Argument argument(int id, Floats& data, Ints shape) { return {id, data.data(), std::move(shape)}; }

struct Engine {
  explicit Engine(GraphSpec spec, int threads = 2, double small_work = 0)
      : runtime(make_runtime(threads, small_work)),
        store(std::make_shared<WeightStore>(runtime)),
        program(runtime, store, std::move(spec)) {}
  std::shared_ptr<Runtime> runtime;
  std::shared_ptr<WeightStore> store;
  Program program;
};

// x -> op -> y, both of the same symbolic size.
GraphSpec one_node(const char* op, Attributes attributes = {}, DataType dtype = DataType::f32) {
  GraphBuilder b({"n"});
  const int x = b.add("x", kInput, SymbolicShape{b.dim(0)}, dtype);
  const int y = b.add("y", kOutput, SymbolicShape{b.dim(0)}, dtype);
  b.node(op, std::move(attributes), {x}, {y});
  return b.spec;
}

Floats run_one(Engine& engine, Floats x) {
  Floats y(x.size(), -1);
  const int64_t n = static_cast<int64_t>(x.size());
  engine.program.run({argument(0, x, {n}), argument(1, y, {n})});
  return y;
}

int32_t scale_check(atb_call* call) {
  double factor;
  if (call->inputs[0].dtype != ATB_FLOAT32) return atb_fail(call, "x must be float32");
  if (!atb_same_shape(&call->inputs[0], &call->outputs[0])) return atb_fail(call, "the shapes differ");
  if (!atb_get_float(call, "factor", &factor)) return atb_fail(call, "attribute 'factor' is missing");
  return 0;
}

int32_t scale_run(atb_call* call) {
  double factor = 0;
  atb_get_float(call, "factor", &factor);
  int64_t begin, end;
  atb_share(call, atb_count(call->inputs), &begin, &end);
  const auto* x = static_cast<const float*>(call->inputs[0].data);
  auto* y = static_cast<float*>(call->outputs[0].data);
  for (int64_t i = begin; i < end; ++i) y[i] = std::sin(x[i]) * static_cast<float>(factor);
  return 0;
}

const bool scale_is_there = [] {
  add("Scale", scale_run, scale_check);
  return true;
}();

}  // namespace

TEST(a_custom_op_runs_between_ops_of_the_engine_with_the_same_bits_for_any_threads) {
  Floats expected;
  for (int threads : {1, 2, 3}) {
    GraphBuilder b({"n"});
    const SymbolicShape shape = {b.dim(0), DimExpr(int64_t{3})};
    const int x = b.add("x", kInput, shape), doubled = b.add("", kInternal, shape),
              scaled = b.add("", kInternal, shape);
    const int y = b.add("y", kOutput, shape);
    b.node("Elewise", elewise("ELEWISE_MULS", 2), {x}, {doubled});
    b.node("Scale", {{"factor", 0.7}}, {doubled}, {scaled});
    b.node("Elewise", elewise("ELEWISE_ADD"), {scaled, x}, {y});
    Engine engine(b.spec, threads);
    Floats in(3 * 1001), out(in.size());
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i) / 7 - 100;
    engine.program.run({argument(x, in, {1001, 3}), argument(y, out, {1001, 3})});
    if (threads == 1) {
      expected = out;
      for (size_t i = 0; i < in.size(); ++i) CHECK(out[i] == std::sin(2 * in[i]) * 0.7f + in[i]);
    }
    CHECK(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) == 0);
  }
}

TEST(a_custom_op_takes_no_and_few_elements) {
  Engine engine(one_node("Scale", {{"factor", int64_t{1}}}), 3);
  CHECK(run_one(engine, {}).empty());
  CHECK(run_one(engine, {1}) == Floats{std::sin(1.0f)});
}

TEST(the_parts_have_each_unit_once) {
  for (int64_t n : {0, 1, 5, 6, 7, 1000}) {
    for (int32_t parts : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int32_t part = 0; part < parts; ++part) {
        atb_call call{};
        call.part = part;
        call.parts = parts;
        int64_t begin, end;
        atb_share(&call, n, &begin, &end);
        CHECK(begin == next && end >= begin && end - begin <= n / parts + 1);
        next = end;
      }
      CHECK(next == n);
    }
  }
}

TEST(check_sees_op_shapes_types_and_attributes_but_no_data) {
  add("Inspected", scale_run, [](atb_call* call) -> int32_t {
    int flag = 0;
    int64_t integer = 0, length = 0;
    double number = 0, whole = 0;
    const char* text = nullptr;
    const int64_t* list = nullptr;
    const atb_tensor &x = call->inputs[0], &y = call->outputs[0];
    const bool tensors = call->num_inputs == 1 && call->num_outputs == 1 && x.rank == 1 && x.shape[0] == 5 &&
                         x.dtype == ATB_BFLOAT16 && y.shape[0] == 5 && x.data == nullptr && y.data == nullptr;
    const bool attributes = call->num_attributes == 5 && atb_get_bool(call, "flag", &flag) && flag == 1 &&
                            atb_get_int(call, "integer", &integer) && integer == -7 &&
                            atb_get_float(call, "number", &number) && number == 0.5 &&
                            atb_get_float(call, "integer", &whole) && whole == -7 &&
                            atb_get_text(call, "text", &text) && std::string(text) == "norm" &&
                            atb_get_list(call, "list", &list, &length) && length == 2 && list[0] == 3 && list[1] == 4;
    const bool others = !atb_get_int(call, "number", &integer) && !atb_get_bool(call, "integer", &flag) &&
                        !atb_get_text(call, "absent", &text) && integer == -7;
    const bool state = call->size == sizeof(atb_call) && std::string(call->op) == "Inspected" && call->parts == 3;
    return atb_fail(call, "tensors %d attributes %d others %d state %d", tensors, attributes, others, state);
  });
  const Attributes attributes = {
      {"flag", true}, {"integer", int64_t{-7}}, {"number", 0.5}, {"text", std::string("norm")}, {"list", Ints{3, 4}}};
  Engine engine(one_node("Inspected", attributes, DataType::bf16), 3);
  std::vector<uint16_t> x(5), y(5);
  CHECK_THROWS(engine.program.run({{0, x.data(), {5}}, {1, y.data(), {5}}}), "tensors 1 attributes 1 others 1 state 1");
}

TEST(an_error_of_check_names_op_place_and_sizes_before_anything_runs) {
  GraphBuilder b({"n"});
  const int x = b.add("x", kInput, SymbolicShape{b.dim(0)}), y = b.add("y", kOutput, SymbolicShape{b.dim(0)});
  const int z = b.add("z", kOutput, SymbolicShape{b.dim(0)});
  b.node("Elewise", elewise("ELEWISE_MULS", 2), {x}, {y});
  b.node("Scale", {}, {x}, {z});
  Engine engine(b.spec);
  Floats in = {1, 2}, doubled(2, -1), out(2, -1);
  CHECK_THROWS(engine.program.run({argument(x, in, {2}), argument(y, doubled, {2}), argument(z, out, {2})}),
               "Scale at node1 (n = 2): attribute 'factor' is missing");
  CHECK((doubled == Floats{-1, -1}));
}

TEST(an_error_of_run_names_op_and_place_and_the_engine_goes_on) {
  add("RootOf", [](atb_call* call) -> int32_t {
    int64_t begin, end;
    atb_share(call, atb_count(call->inputs), &begin, &end);
    for (int64_t i = begin; i < end; ++i) {
      const float x = static_cast<const float*>(call->inputs[0].data)[i];
      if (x < 0) return atb_fail(call, "no root of %g", x);
      static_cast<float*>(call->outputs[0].data)[i] = std::sqrt(x);
    }
    return 0;
  });
  for (int threads : {1, 3}) {
    for (double small_work : {0.0, 1e9}) {
      Engine engine(one_node("RootOf"), threads, small_work);
      CHECK((run_one(engine, {1, 4, 9}) == Floats{1, 2, 3}));
      CHECK_THROWS(run_one(engine, {1, 4, -9}), "RootOf at node0: no root of -9");
      // Every part fails; one of the errors is reported.
      CHECK_THROWS(run_one(engine, Floats(6, -4)), "RootOf at node0: no root of -4");
      CHECK((run_one(engine, {16}) == Floats{4}));
    }
  }
}

TEST(nothing_runs_after_a_node_that_failed) {
  static std::atomic<int> runs{0};
  add("Refuses", [](atb_call* call) -> int32_t { return atb_fail(call, "not today"); });
  add("Counts", [](atb_call*) -> int32_t {
    ++runs;
    return 0;
  });
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{4}), middle = b.add("", kInternal, Ints{4}), y = b.add("y", kOutput, Ints{4});
  b.node("Refuses", {}, {x}, {middle}).node("Counts", {}, {middle}, {y});
  Engine engine(b.spec);
  Floats in(4), out(4);
  CHECK_THROWS(engine.program.run({argument(x, in, {4}), argument(y, out, {4})}), "Refuses at node0: not today");
  CHECK(runs == 0);
}

TEST(whatever_a_kernel_leaves_as_message_can_be_printed) {
  add("Mute", [](atb_call*) -> int32_t { return 7; });
  add("Garbled",
      [](atb_call* call) -> int32_t { return atb_fail(call, "caf\xC3\xA9 \xFF\xC3 \xED\xA0\x80 \xE2\x82"); });
  add("Endless", [](atb_call* call) -> int32_t {
    std::memset(call->message, 'x', call->message_size);
    return 1;
  });
  add("Talkative", [](atb_call* call) -> int32_t { return atb_fail(call, "%s", std::string(2000, 'y').c_str()); });
  const auto message = [](const char* op) -> std::string {
    Engine engine(one_node(op));
    try {
      run_one(engine, {1, 2});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message("Mute") == "Mute at node0: its kernel failed with status 7 and no message");
  CHECK(message("Garbled") == "Garbled at node0: caf\xC3\xA9 ?? ??? ??");
  CHECK(message("Endless") == "Endless at node0: " + std::string(ATB_MESSAGE_SIZE - 1, 'x'));
  CHECK(message("Talkative") == "Talkative at node0: " + std::string(ATB_MESSAGE_SIZE - 1, 'y'));
}

TEST(an_exception_that_leaves_a_kernel_is_an_error_like_others) {
  add("Throws", [](atb_call*) -> int32_t { throw std::runtime_error("lost"); });
  add("ThrowsAnything", [](atb_call*) -> int32_t { throw 1; });
  Engine first(one_node("Throws"), 3), second(one_node("ThrowsAnything"), 3);
  CHECK_THROWS(run_one(first, {1, 2, 3}), "Throws at node0: its kernel threw an exception: lost");
  CHECK_THROWS(run_one(second, {1, 2, 3}), "ThrowsAnything at node0: its kernel threw an exception");
}

TEST(inputs_that_an_op_writes_are_written_in_order) {
  // Adds `value` to `target` in place.
  add("AddInto",
      [](atb_call* call) -> int32_t {
        int64_t begin, end;
        atb_share(call, atb_count(&call->inputs[1]), &begin, &end);
        auto* target = static_cast<float*>(call->inputs[1].data);
        for (int64_t i = begin; i < end; ++i) target[i] += static_cast<const float*>(call->inputs[0].data)[i];
        return 0;
      },
      nullptr, {1});
  GraphBuilder b;
  const int value = b.add("value", kInput, Ints{2}), target = b.add("target", kInput, Ints{2});
  const int before = b.add("before", kOutput, Ints{2}), after = b.add("after", kOutput, Ints{2});
  b.node("Elewise", elewise("ELEWISE_MULS", 10), {target}, {before});
  b.node("AddInto", {}, {value, target}, {}).node("AddInto", {}, {value, target}, {});
  b.node("Elewise", elewise("ELEWISE_MULS", 10), {target}, {after});
  Engine engine(b.spec);
  Floats v = {1, 2}, t = {5, 6}, old(2), fresh(2);
  engine.program.run(
      {argument(value, v, {2}), argument(target, t, {2}), argument(before, old, {2}), argument(after, fresh, {2})});
  CHECK((t == Floats{7, 10}));
  CHECK((old == Floats{50, 60}));
  CHECK((fresh == Floats{70, 100}));
  // Memory that is both input and output is refused, as for any op.
  CHECK_THROWS(engine.program.run({argument(value, t, {2})}), "share memory");

  GraphBuilder weight, few;
  const int w = weight.add("w", TensorKind::weight, Ints{2}), x = weight.add("x", kInput, Ints{2});
  weight.node("AddInto", {}, {x, w}, {});
  CHECK_THROWS(Engine(weight.spec), "AddInto at node0: it writes weight 'w'");
  few.node("AddInto", {}, {few.add("x", kInput, Ints{2})}, {});
  CHECK_THROWS(Engine(few.spec), "AddInto at node0: it has 1 inputs, at least 2 are needed");
}

TEST(weights_reach_a_kernel_as_they_were_set_even_when_a_linear_shares_them) {
  add("RowSum", [](atb_call* call) -> int32_t {
    const atb_tensor& w = call->inputs[0];
    int64_t begin, end;
    atb_share(call, w.shape[0], &begin, &end);
    for (int64_t row = begin; row < end; ++row) {
      float sum = 0;
      for (int64_t k = 0; k < w.shape[1]; ++k) sum += static_cast<const float*>(w.data)[row * w.shape[1] + k];
      static_cast<float*>(call->outputs[0].data)[row] = sum;
    }
    return 0;
  });
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{1, 3}), w = b.add("w", TensorKind::weight, Ints{2, 3});
  const int y = b.add("y", kOutput, Ints{1, 2}), sums = b.add("sums", kOutput, Ints{2});
  b.node("Linear", {{"transpose_b", true}}, {x, w}, {y}).node("RowSum", {}, {w}, {sums});
  Engine engine(b.spec);
  const Floats weight = {1, 2, 3, 4, 5, 6};
  engine.store->set("w", weight.data(), DataType::f32, {2, 3});
  Floats in = {1, 1, 1}, product(2), total(2);
  engine.program.run({argument(x, in, {1, 3}), argument(y, product, {1, 2}), argument(sums, total, {2})});
  CHECK((product == Floats{6, 15}));
  CHECK((total == Floats{6, 15}));
}

TEST(each_part_has_scratch_memory_of_its_own) {
  add(
      "Reversed",
      [](atb_call* call) -> int32_t {
        const size_t bytes = static_cast<size_t>(atb_count(call->inputs)) * sizeof(float);
        if (reinterpret_cast<uintptr_t>(call->scratch) % 64 != 0) return atb_fail(call, "not aligned");
        auto* copy = static_cast<float*>(call->scratch);
        std::memcpy(copy, call->inputs[0].data, bytes);
        int64_t begin, end;
        const int64_t n = atb_count(call->inputs);
        atb_share(call, n, &begin, &end);
        for (int64_t i = begin; i < end; ++i) {
          static_cast<float*>(call->outputs[0].data)[i] = copy[n - 1 - i];
          copy[n - 1 - i] = NAN;
        }
        return 0;
      },
      [](atb_call* call) -> int32_t {
        call->scratch_bytes = static_cast<size_t>(atb_count(call->inputs)) * sizeof(float);
        return 0;
      });
  Engine engine(one_node("Reversed"), 3);
  Floats x(1000), y(1000);
  for (size_t i = 0; i < x.size(); ++i) y[y.size() - 1 - i] = x[i] = static_cast<float>(i);
  CHECK(run_one(engine, x) == y);

  add(
      "Greedy", [](atb_call*) -> int32_t { return 0; },
      [](atb_call* call) -> int32_t {
        call->scratch_bytes = SIZE_MAX;
        return 0;
      });
  Engine greedy(one_node("Greedy"));
  CHECK_THROWS(run_one(greedy, {1}), "Greedy at node0 (n = 1): its kernel asks for");
}

TEST(little_work_is_not_split_unless_the_kernel_says_that_it_is_much) {
  static std::atomic<int> parts{0};
  const auto run = [](atb_call* call) -> int32_t {
    parts = call->parts;
    return 0;
  };
  add("Light", run);
  add("Heavy", run, [](atb_call* call) -> int32_t {
    call->work = 1e9;
    return 0;
  });
  Engine light(one_node("Light"), 3, 1000), heavy(one_node("Heavy"), 3, 1000);
  run_one(light, {1});
  CHECK(parts == 1);
  run_one(light, Floats(1000));
  CHECK(parts == 3);
  run_one(heavy, {1});
  CHECK(parts == 3);
}

TEST(kernels_of_another_version_or_without_code_are_refused_by_name) {
  CHECK_THROWS(register_kernel({"Future", ATB_KERNEL_ABI_VERSION + 1, nullptr, scale_run, {}}),
               "the kernel of op Future is written for version 2 of the kernel ABI; this engine has version 1");
  CHECK_THROWS(add("Empty", nullptr), "the kernel of op Empty has no run function");
  CHECK_THROWS(add("", scale_run), "needs the name");
  CHECK_THROWS(add("Negative", scale_run, nullptr, {-1}), "cannot write input -1");
  for (const char* op : {"Future", "Empty", "", "Negative"}) CHECK(find_op(op) == nullptr);
}

TEST(a_name_is_given_once) {
  CHECK_THROWS(add("Linear", scale_run), "the engine has an op Linear of its own");
  CHECK_THROWS(add("Scale", scale_run), "there is an op Scale already");
  const std::vector<std::string> names = op_names();
  CHECK(std::is_sorted(names.begin(), names.end()));
  CHECK(std::count(names.begin(), names.end(), "Scale") == 1);
}

TEST(ops_are_added_and_found_from_several_threads) {
  std::vector<std::thread> threads;
  std::atomic<int> added{0}, wrong{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const std::string op = "Many" + std::to_string(i);
        try {
          register_kernel({op, ATB_KERNEL_ABI_VERSION, nullptr, scale_run, {}});
          ++added;
        } catch (const Error&) {
        }
        const OpSignature* found = find_op(op);
        wrong += found == nullptr || op != found->name;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(added == 50);
  CHECK(wrong == 0);
}

TEST_MAIN()
