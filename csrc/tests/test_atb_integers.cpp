// SPDX-License-Identifier: Apache-2.0
// Programs whose weights become integers: operations that are made again, results, failures of a call.
#include "atb_device.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;

namespace {

constexpr uint16_t kOne = 0x3C00, kTwo = 0x4000, kFour = 0x4400;  // float16
const Ints kShape = {2, 64};

// y [1, 2] = x [1, 64] times weight [2, 64], transposed, plus a bias.
GraphSpec product(DataType type = DataType::f16) {
  GraphBuilder b;
  const int x = b.add("x", kInput, Ints{1, 64}, type), w = b.add("w", kWeight, kShape, type);
  const int bias = b.add("b", kWeight, Ints{2}, type), y = b.add("y", kOutput, Ints{1, 2}, type);
  b.node("Linear", {{"has_bias", true}}, {x, w, bias}, {y});
  return b.spec;
}

Halves run(Engine& engine) {
  Halves x(64, kOne), y(2);
  engine.program->run({argument(0, x, {1, 64}), argument(3, y, {1, 2})});
  return y;
}

void set_floats(DeviceWeights& weights, uint16_t value) {
  const Halves w(128, value), bias(2);
  weights.set("w", w.data(), DataType::f16, kShape);
  weights.set("b", bias.data(), DataType::f16, {2});
}

// Every element is (integer + offset) * scale; integers and offsets in the order of describe_part().
void set_integers(DeviceWeights& weights, const QuantFormat& format, uint8_t integers, uint16_t offset = 0) {
  const std::vector<uint8_t> q(128 * static_cast<size_t>(format.bits) / 8, integers);
  const size_t groups = format.group > 0 ? 64 / static_cast<size_t>(format.group) : 1;
  const Halves scales(2 * groups, kTwo), offsets(2 * groups, offset);
  weights.set_quantized("w", DataType::f16, kShape, format, q.data(), scales.data(), offsets.data());
}

}  // namespace

TEST(a_program_follows_its_weight_from_floats_to_integers_and_back) {
  Engine engine(product());
  set_floats(*engine.weights, kOne);
  CHECK(run(engine) == Halves(2, 0x5400));  // 64
  set_integers(*engine.weights, {8, 0, false}, 2);
  const uint64_t made = sim::counters().creates;
  CHECK(run(engine) == Halves(2, 0x5C00));  // 64 * 4
  CHECK(sim::counters().creates > made && engine.program->plan_info().operations == 1);
  const uint64_t again = sim::counters().creates;
  set_integers(*engine.weights, {8, 0, false}, 1);
  CHECK(run(engine) == Halves(2, 0x5800) && sim::counters().creates == again);
  set_integers(*engine.weights, {4, 32, true}, 0x11, kOne);
  CHECK(run(engine) == Halves(2, 0x5C00));
  CHECK(engine.weights->info("w").bytes == 64 + 8 + 8 && engine.weights->info("w").shape == kShape);
  set_floats(*engine.weights, kTwo);
  CHECK(run(engine) == Halves(2, 0x5800) && sim::counters().live_aclnn == 0);
}

TEST(parts_of_a_weight_in_floats_replace_its_integers) {
  Engine engine(product());
  set_floats(*engine.weights, kOne);
  set_integers(*engine.weights, {8, 0, false}, 2);
  const Halves row(64, kFour);
  engine.weights->set_part("w", 0, row.data(), DataType::f16, {1, 64}, 2);
  engine.weights->set_part("w", 1, row.data(), DataType::f16, {1, 64}, 2);
  CHECK(run(engine) == Halves(2, 0x5C00));
}

TEST(another_program_of_the_weights_has_the_calls_at_once) {
  const Device::Options options{.execute_async = true};
  Engine engine(product(), options);
  set_floats(*engine.weights, kOne);
  set_integers(*engine.weights, {8, 0, true}, 0, kTwo);
  Engine other(engine.weights, product());
  CHECK(run(other) == Halves(2, 0x5C00) && run(engine) == Halves(2, 0x5C00));
}

TEST(what_the_device_does_not_multiply_is_refused_with_the_weight) {
  Engine engine(product());
  const auto problem = [&](const QuantFormat& format) {
    return error_of([&] { set_integers(*engine.weights, format, 0); });
  };
  CHECK(has(problem({8, 48, false}), "weight 'w': Atlas A2 does not multiply by integers of 8 bits"));
  const Halves none(4);
  CHECK(has(error_of([&] {
              engine.weights->set_quantized("v", DataType::f16, {4}, {8, 0, false}, none.data(), none.data(), nullptr);
            }),
            "weight 'v' [4] is no matrix"));
  CHECK(!engine.weights->contains("w"));
}

TEST(a_call_that_fails_is_told_and_the_next_run_is_right) {
  Engine engine(product());
  set_floats(*engine.weights, kOne);
  set_integers(*engine.weights, {8, 0, false}, 2);
  sim::inject("aclnnWeightQuantBatchMatmulV2GetWorkspaceSize", 0, 161002);
  CHECK(has(error_of([&] { run(engine); }), "ATB cannot prepare"));
  sim::inject("aclnnWeightQuantBatchMatmulV2GetWorkspaceSize", 1, 161002);
  CHECK(has(error_of([&] { run(engine); }), "ATB cannot launch"));
  sim::inject("aclnnWeightQuantBatchMatmulV2", 0, 361001);
  CHECK(has(error_of([&] { run(engine); }),
            "ERROR_CANN_ERROR (12), aclnnWeightQuantBatchMatmulV2 was told to fail with 361001; "));
  sim::inject_async(0, ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(has(error_of([&] { run(engine); }), "an operation failed on the device"));
  CHECK(run(engine) == Halves(2, 0x5C00) && sim::counters().live_aclnn == 0);
}

TEST(a_call_that_is_refused_is_named_with_the_op_and_its_status) {
  Engine engine(product());
  set_floats(*engine.weights, kOne);
  set_integers(*engine.weights, {8, 0, false}, 2);
  sim::set_soc("Ascend910A");
  const std::string message = error_of([&] { run(engine); });
  sim::set_soc("Ascend910B2");
  CHECK(has(message, "it refuses aclnnWeightQuantBatchMatmulV2, made of Linear at node0, with ERROR_CANN_ERROR (12)"));
  CHECK(has(message, "aclnnWeightQuantBatchMatmulV2GetWorkspaceSize reports error 361001"));
  CHECK(run(engine) == Halves(2, 0x5C00));
}

TEST_MAIN()
