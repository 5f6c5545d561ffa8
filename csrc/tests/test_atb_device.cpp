// SPDX-License-Identifier: Apache-2.0
// Devices, weights, layouts and the launch queue: the parts of programs on the device.
#include <atomic>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "atb/launch_queue.h"
#include "atb/layout.h"
#include "atb/status.h"
#include "atb_device.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;

namespace {

struct Soc {
  explicit Soc(const char* name) { sim::set_soc(name); }
  ~Soc() { sim::set_soc("Ascend910B2"); }
};

std::shared_ptr<DeviceWeights> weights_on_a_device() { return std::make_shared<DeviceWeights>(device_with()); }

const std::byte* seen(const DeviceWeights& weights, const char* name, Layout layout) {
  return static_cast<const std::byte*>(sim::window(weights.data(name, layout)));
}

Halves counting(size_t count) {
  Halves values(count);
  std::iota(values.begin(), values.end(), uint16_t{0});
  return values;
}

}  // namespace

TEST(a_device_gives_back_all_that_it_opened) {
  const Alive before = alive();
  {
    Device device({});
    CHECK(device.soc_name() == "Ascend910B2" && std::string(device.info().name) == "Atlas A2");
    CHECK(device.memory().total == uint64_t{64} << 30);
    const auto lease = device.lease();
    CHECK(device.arena(1000) != nullptr && device.workspace(1) != nullptr && device.workspace_bytes() == 1536);
    CHECK(device.workspace_fits(512) && !device.workspace_fits(513));
  }
  CHECK(alive() == before);
}

TEST(a_device_that_is_not_there_or_not_known_is_refused) {
  const Alive before = alive();
  CHECK_THROWS(Device({.id = 1}), "there is no device 1; this machine has 1");
  CHECK_THROWS(Device({.id = -1}), "there is no device -1");
  {
    const Soc soc("Ascend910A");
    CHECK_THROWS(Device({}), "this backend does not run on 'Ascend910A' (Atlas A1)");
  }
  {
    const Soc soc("Ascend950PR");
    CHECK_THROWS(Device({}), "aclnn");
  }
  const Soc soc("Kirin");
  CHECK_THROWS(Device({}), "does not know the device 'Kirin'; it runs on Ascend910B*");
  CHECK(alive() == before);
}

TEST(somebody_elses_stream_is_used_and_left) {
  const std::shared_ptr<Device> owner = device_with();
  const uint64_t streams = sim::counters().live_streams;
  {
    Engine engine(doublings(2), {.stream = owner->stream()});
    CHECK(engine.device().stream() == owner->stream() && doubles(engine, 2));
    CHECK(sim::counters().live_streams == streams);
  }
  CHECK(sim::counters().live_streams == streams);
  owner->synchronize();
}

TEST(a_thread_keeps_the_device_that_it_had_chosen) {
  sim::set_devices(3);
  std::thread([] {
    int32_t chosen = -1;
    const auto chosen_is = [&](int32_t id) { return aclrtGetDevice(&chosen) == ACL_SUCCESS && chosen == id; };
    aclrtSetDevice(2);
    {
      Engine engine(doublings(2), {.id = 1});
      CHECK(chosen_is(2));
      CHECK(doubles(engine, 2) && chosen_is(2));
      const Floats one(4, 1);
      engine.weights->set("w", one.data(), DataType::f32, {4});
      CHECK(chosen_is(2));
      CHECK_THROWS(engine.weights->set("w", one.data(), DataType::f32, {2}), "is float32 [4], not");
      CHECK(chosen_is(2));
      sim::inject("Operation::Setup", 0, 3);
      CHECK_THROWS(doubles(engine, 2), "ATB cannot prepare");
      CHECK(chosen_is(2));
    }
    CHECK(chosen_is(2));
  }).join();
  sim::set_devices(1);
}

TEST(programs_of_one_device_run_from_several_threads) {
  const auto weights = weights_on_a_device();
  std::vector<std::thread> callers;
  std::atomic<int> wrong = 0;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&, caller] {
      Engine engine(weights, doublings(caller + 2));
      for (int round = 1; round <= 20; ++round) wrong += !doubles(engine, caller + 2, round);
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST(the_last_owner_may_be_any_thread) {
  const Alive before = alive();
  auto weights = weights_on_a_device();
  const Floats one(4, 1);
  weights->set("w", one.data(), DataType::f32, {4});
  auto engine = std::make_unique<Engine>(weights, doublings(2));
  CHECK(doubles(*engine, 2));
  const std::shared_ptr<Device> device = weights->device();
  std::thread([&] {
    engine.reset();
    weights.reset();
  }).join();
  device->lease();  // would tell of memory that was not given back
  CHECK(alive() != before && sim::counters().live_bytes == before.bytes + device->workspace_bytes());
}

TEST(what_is_dropped_while_another_thread_has_the_lease_is_given_back_with_the_next) {
  auto weights = weights_on_a_device();
  const std::shared_ptr<Device> device = weights->device();
  const Floats one(4, 1);
  const Alive before = alive();
  weights->set("w", one.data(), DataType::f32, {4});
  {
    const auto lease = device->lease();
    std::thread([&] { weights.reset(); }).join();  // would wait for ever for the lease
  }
  CHECK(alive() != before);
  device->lease();
  CHECK(alive() == before);
}

TEST(a_device_that_is_shut_is_used_no_more_and_gives_nothing_back_later) {
  const std::shared_ptr<Device> owner = device_with();
  const Alive before = alive();
  {
    const LeaksAllowed leaks;  // the operations, which nobody destroys
    Engine engine(doublings(2), {.stream = owner->stream()});
    const Floats one(4, 1);
    engine.weights->set("w", one.data(), DataType::f32, {4});
    CHECK(doubles(engine, 2));
    const uint64_t operations = alive().operations;
    engine.device().shut();
    CHECK(alive().contexts == before.contexts && alive().operations == operations && operations > before.operations);
    CHECK_THROWS(doubles(engine, 2), "device 0 was closed, for the process ends");
    CHECK_THROWS(engine.weights->set("w", one.data(), DataType::f32, {4}), "was closed");
    const uint64_t calls = sim::calls();
    engine.device().shut();
    engine.program.reset();
    engine.weights.reset();
    CHECK(sim::calls() == calls);
  }
  owner->synchronize();
}

TEST(weights_are_copied_and_described) {
  const auto weights = weights_on_a_device();
  const Floats values = {1, 2, 3, 4, 5, 6};
  CHECK(!weights->contains("w") && weights->names().empty());
  CHECK_THROWS(weights->info("w"), "weight 'w' has not been set");
  weights->set("w", values.data(), DataType::f32, {2, 3});
  CHECK(weights->contains("w") && weights->names() == std::vector<std::string>{"w"} && weights->bytes() == 24);
  const DeviceWeights::Info info = weights->info("w");
  CHECK(info.dtype == DataType::f32 && info.shape == (Ints{2, 3}) && info.bytes == 24);
  CHECK(std::memcmp(seen(*weights, "w", Layout::nd), values.data(), 24) == 0);
  CHECK(weights->data("w", Layout::nz) == nullptr && weights->data("v", Layout::nd) == nullptr);
  CHECK_THROWS(weights->set("w", values.data(), DataType::f32, {6}), "weight 'w' is float32 [2, 3], not float32 [6]");
}

TEST(weights_set_in_parts_are_there_with_the_last_part) {
  const auto weights = weights_on_a_device();
  const Floats values = {1, 2, 3, 4, 5, 6};
  const auto part = [&](int64_t begin, int64_t rows) {
    weights->set_part("w", begin, values.data() + 2 * begin, DataType::f32, {rows, 2}, 3);
  };
  part(0, 1);
  CHECK(!weights->contains("w"));
  CHECK_THROWS(part(2, 1), "begins at 2, but the next one has to begin at 1");
  CHECK_THROWS(part(2, 2), "rows from 2 on are no part of weight 'w', which has 3");
  sim::inject("aclrtMemcpy", 0, 507000);
  CHECK_THROWS(part(1, 2), "copying 16 bytes to the device failed");
  part(1, 2);
  CHECK(weights->contains("w") && std::memcmp(seen(*weights, "w", Layout::nd), values.data(), 24) == 0);
  part(0, 1);  // begins anew
  CHECK(!weights->contains("w"));
}

TEST(a_weight_has_a_copy_in_each_layout_that_is_wanted) {
  const auto weights = weights_on_a_device();
  const Halves values = counting(32 * 32);
  weights->declare("w", DataType::f16, {32, 32}, Layout::nz);
  CHECK_THROWS(weights->set_part("w", 0, values.data(), DataType::f16, {16, 32}, 32), "only be set as a whole");
  weights->set("w", values.data(), DataType::f16, {32, 32});
  CHECK(weights->data("w", Layout::nd) == nullptr);
  // Column blocks of 16 elements one after another: row 1 of the first block, row 0 of the second.
  const auto* blocks = reinterpret_cast<const uint16_t*>(seen(*weights, "w", Layout::nz));
  CHECK(blocks[16] == 32 && blocks[32 * 16] == 16 && blocks[32 * 32 - 1] == values.back());
  CHECK_THROWS(weights->declare("w", DataType::f16, {32, 32}, Layout::nd), "set it again");
  weights->set("w", values.data(), DataType::f16, {32, 32});
  CHECK(weights->data("w", Layout::nd) != nullptr && weights->info("w").bytes == 2 * 2048);
  CHECK_THROWS(weights->declare("v", DataType::f16, {30, 32}, Layout::nz), "no FRACTAL_NZ layout");
}

TEST(a_second_layout_is_made_from_the_first_and_may_be_asked_for_again_after_a_failure) {
  const auto weights = weights_on_a_device();
  const Halves values = counting(16 * 32);
  weights->set("w", values.data(), DataType::f16, {16, 32});
  for (const char* call : {"aclrtMemcpy", "aclrtMalloc"}) {
    sim::inject(call, 0, 207001);
    CHECK(error_of([&] { weights->declare("w", DataType::f16, {16, 32}, Layout::nz); }) != "");
    CHECK(weights->data("w", Layout::nd) != nullptr && weights->data("w", Layout::nz) == nullptr);
  }
  const uint64_t generation = weights->generation();
  weights->declare("w", DataType::f16, {16, 32}, Layout::nz);
  CHECK(weights->data("w", Layout::nz) != nullptr && weights->generation() != generation);
}

TEST(a_weight_is_transposed_and_turned_back_where_another_program_wants_its_rows) {
  for (DataType type : {DataType::i8, DataType::f16, DataType::f32, DataType::i64}) {
    const auto weights = weights_on_a_device();
    const size_t bytes = 70 * 130 * itemsize(type), item = itemsize(type);
    std::vector<std::byte> values(bytes);
    for (size_t i = 0; i < bytes; ++i) values[i] = static_cast<std::byte>(i * 31 >> 3);
    weights->declare("w", type, {70, 130}, Layout::transposed);
    weights->set("w", values.data(), type, {70, 130});
    CHECK(weights->data("w", Layout::nd) == nullptr);
    const std::byte* turned = seen(*weights, "w", Layout::transposed);
    CHECK(std::memcmp(turned + (129 * 70 + 68) * item, values.data() + (68 * 130 + 129) * item, item) == 0);
    weights->declare("w", type, {70, 130}, Layout::nd);
    CHECK(std::memcmp(seen(*weights, "w", Layout::nd), values.data(), bytes) == 0);
  }
  CHECK_THROWS(weights_on_a_device()->declare("v", DataType::f16, {256}, Layout::transposed), "it is no matrix");
}

TEST(a_tied_embedding_stays_in_rows_and_an_option_keeps_all_weights_so) {
  const auto bytes = [](bool gathered, bool option) {
    GraphBuilder b({"n"});
    const int x = b.add("x", kInput, SymbolicShape{b.dim(0), DimExpr(int64_t{64})}, DataType::f16);
    const int w = b.add("w", kWeight, Ints{256, 64}, DataType::f16);
    const SymbolicShape wide{b.dim(0), DimExpr(int64_t{256})};
    b.node("Linear", {}, {x, w}, {b.add("y", kOutput, wide, DataType::f16)});
    if (gathered) {
      const int ids = b.add("ids", kInput, SymbolicShape{b.dim(0)}, DataType::i32);
      const SymbolicShape rows{b.dim(0), DimExpr(int64_t{64})};
      b.node("Gather", {}, {w, ids}, {b.add("z", kOutput, rows, DataType::f16)});
    }
    Engine engine(b.spec, {.auto_transpose = option});
    const Halves values = counting(256 * 64);
    engine.weights->set("w", values.data(), DataType::f16, {256, 64});
    const auto has = [&](Layout layout) { return engine.weights->data("w", layout) != nullptr; };
    CHECK(engine.weights->bytes() == 256 * 64 * 2 && has(Layout::transposed) != has(Layout::nd));
    return has(Layout::transposed);
  };
  CHECK(bytes(false, true) && !bytes(true, true) && !bytes(false, false));
}

TEST(fractal_nz_is_described_and_made) {
  const auto dims = [](const ::atb::TensorDesc& desc) {
    return Ints(desc.shape.dims, desc.shape.dims + desc.shape.dimNum);
  };
  CHECK((dims(describe_tensor(DataType::f16, Ints{32, 48}, Layout::nz)) == Ints{1, 3, 32, 16}));
  CHECK((dims(describe_tensor(DataType::i8, Ints{2, 32, 64}, Layout::nz)) == Ints{2, 2, 32, 32}));
  CHECK((dims(describe_tensor(DataType::f16, Ints{9, 128, 2, 64}, Layout::nz)) == Ints{9, 8, 128, 16}));
  CHECK((dims(describe_tensor(DataType::i64, Ints{3}, Layout::nd)) == Ints{3}));
  for (const Ints& shape : {Ints{16}, Ints{15, 16}, Ints{16, 15}, Ints{1, 1, 1, 16, 16}}) {
    CHECK_THROWS(describe_tensor(DataType::f16, shape, Layout::nz), "no FRACTAL_NZ layout");
  }
  CHECK(acl_type(DataType::bf16) == ACL_BF16 && acl_type(DataType::b8) == ACL_BOOL);
}

TEST(codes_have_names) {
  CHECK(atb_status_text(0) == "NO_ERROR (0)" && atb_status_text(29) == "ERROR_COPY_HOST_MEMORY_FAIL (29)");
  for (int status : {-1, 30}) CHECK(has(atb_status_text(status), "a code that is not documented"));
  CHECK_THROWS(check_atb(8, "adding"), "adding: ATB reports ERROR_INVALID_TENSOR_DIM (8)");
  aclrtFree(nullptr);
  CHECK_THROWS(check_acl(107000, "freeing"), "freeing: ACL reports error 107000, aclrtFree: nothing was allocated");
}

TEST(the_queue_does_tasks_in_order_on_one_thread) {
  std::vector<int> done;
  std::atomic<int> starts = 0;
  LaunchQueue queue([&] { ++starts; });
  for (int i = 0; i < 100; ++i) queue.push([&, i] { done.push_back(i); });
  queue.drain();
  CHECK(starts == 1 && done.size() == 100 && done[99] == 99 && !queue.failed());
}

TEST(after_a_task_that_failed_the_rest_is_dropped_until_somebody_asks) {
  LaunchQueue queue([] {});
  std::atomic<int> done = 0;
  queue.push([] { throw std::runtime_error("the first"); });
  while (!queue.failed()) std::this_thread::yield();
  queue.push([&] { ++done; });
  CHECK_THROWS(queue.drain(), "the first");
  CHECK(done == 0 && !queue.failed());
  queue.push([&] { ++done; });
  queue.drain();
  CHECK(done == 1);
  queue.push([] { throw std::runtime_error("the second"); });
  while (!queue.failed()) std::this_thread::yield();
  queue.abandon();
  queue.drain();
}

TEST(a_thread_that_could_not_start_tries_again) {
  int starts = 0;
  LaunchQueue queue([&] {
    if (++starts == 1) throw std::runtime_error("no device");
  });
  queue.push([] {});
  CHECK_THROWS(queue.drain(), "no device");
  queue.push([] {});
  queue.drain();
  CHECK(starts == 2);
}

TEST_MAIN()
