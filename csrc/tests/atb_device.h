// SPDX-License-Identifier: Apache-2.0
// Helpers for tests of programs on the simulator's device.
#pragma once

#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "atb/device_program.h"
#include "check.h"
#include "graph_builder.h"
#include "sim/control.h"
#include "sim/opapi.h"

namespace atb_core::test {

namespace sim = ::atb::sim;
using ascend::Device;
using ascend::DeviceProgram;
using ascend::DeviceWeights;
using ascend::Layout;
using Floats = std::vector<float>;
using Ints = std::vector<int64_t>;
using Halves = std::vector<uint16_t>;  // float16; 0x3C00 is 1
using Numbers = std::vector<int>;      // of segments

// The calls of aclnn are the simulator's.
inline const bool kSimulated = (ascend::find_aclnn_with(&sim::opapi_symbol), true);

constexpr TensorKind kInput = TensorKind::input, kOutput = TensorKind::output, kInternal = TensorKind::internal,
                     kWeight = TensorKind::weight;

inline std::shared_ptr<Device> device_with(Device::Options options = {}) { return std::make_shared<Device>(options); }

// Program with its own weights; every node is a segment unless `numbers` assigns segments.
struct Engine {
  explicit Engine(GraphSpec spec, Device::Options options = {}, Numbers numbers = {})
      : Engine(std::make_shared<DeviceWeights>(device_with(options)), std::move(spec), std::move(numbers)) {}
  Engine(std::shared_ptr<DeviceWeights> shared, GraphSpec spec, Numbers numbers = {}) : weights(std::move(shared)) {
    if (numbers.empty()) {
      numbers.resize(spec.nodes.size());
      std::iota(numbers.begin(), numbers.end(), 0);
    }
    program = std::make_unique<DeviceProgram>(weights, std::move(spec), numbers);
  }
  Device& device() { return *weights->device(); }

  std::shared_ptr<DeviceWeights> weights;
  std::unique_ptr<DeviceProgram> program;
};

template <typename T>
Argument argument(int id, std::vector<T>& data, Ints shape) {
  return {id, data.data(), std::move(shape)};
}

// x -> 2x -> 4x -> ... `steps` doublings of [n, 4].
inline GraphSpec doublings(int steps) {
  GraphBuilder b({"n"});
  const SymbolicShape shape{b.dim(0), DimExpr(int64_t{4})};
  int at = b.add("x", kInput, shape);
  for (int i = 0; i < steps; ++i) {
    const bool last = i == steps - 1;
    const int next = b.add(last ? "y" : "", last ? kOutput : kInternal, shape);
    b.node("Elewise", elewise("ELEWISE_ADD"), {at, at}, {next});
    at = next;
  }
  return b.spec;
}

// Doubles `n` rows of ones and checks the result.
inline bool doubles(Engine& engine, int steps, int64_t n = 2) {
  Floats x(static_cast<size_t>(4 * n), 1), y(x.size());
  engine.program->run({argument(0, x, {n, 4}), argument(steps, y, {n, 4})});
  return y == Floats(x.size(), static_cast<float>(1 << steps));
}

// Number of live allocations on the device and of ATB's objects.
struct Alive {
  uint64_t bytes, allocations, operations, contexts, streams, events;
  bool operator==(const Alive&) const = default;
};
inline Alive alive() {
  const sim::Counters now = sim::counters();
  return {now.live_bytes,    now.live_allocations, now.live_operations,
          now.live_contexts, now.live_streams,     now.live_events};
}

// Returns the message of the function's error, "" if there is none.
template <typename Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return *error.what() == '\0' ? "an error without a message" : error.what();
  }
  return "";
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace atb_core::test
