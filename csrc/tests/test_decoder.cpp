// SPDX-License-Identifier: Apache-2.0
// The decoder that C++ builds gives the same on the processor and on the simulated device.
#include <cmath>

#include "cpu/engine/graph_backend.h"
#include "cpu_runtime.h"
#include "decoder_steps.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

std::shared_ptr<GraphBackend> on_processor() {
  return std::make_shared<CpuGraphBackend>(std::make_shared<WeightStore>(make_runtime()));
}

float value_of(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const float size = static_cast<float>((half & 1023) | (exponent ? 1024 : 0)) / 1024.0f;
  return (half & 0x8000 ? -size : size) * std::exp2(static_cast<float>(exponent ? exponent : 1) - 15.0f);
}

bool near(const Halves& a, const Halves& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(value_of(a[i]) - value_of(b[i])) <= 0.02f)) return false;
  }
  return a.size() == b.size();
}

// Prefill and decode over one set of weights and caches.
std::vector<Halves> generation(const std::shared_ptr<GraphBackend>& backend, Device* device) {
  Decoder prefill(backend);
  Decoder decode(backend, false, &prefill.engine());
  Caches caches(device);
  std::vector<Halves> results;
  for (Decoder* one : {&prefill, &decode}) one->engine().set_caches(caches.keys, caches.values);
  results.push_back(Step(true).run(prefill));
  results.push_back(Step(false).run(decode));
  return results;
}

}  // namespace

TEST(the_decoder_gives_the_same_on_the_processor_and_on_the_device) {
  const auto weights = std::make_shared<DeviceWeights>(device_with());
  const auto ours = generation(std::make_shared<ascend::DeviceGraphBackend>(weights), weights->device().get());
  const auto theirs = generation(on_processor(), nullptr);
  for (size_t i = 0; i < ours.size(); ++i) CHECK(near(ours[i], theirs[i]));
  CHECK(ours[0] != ours[1]);
}

TEST_MAIN()
