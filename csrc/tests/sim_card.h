// SPDX-License-Identifier: Apache-2.0
// Helpers for tests of the simulator: a device with stream and context, tensors on it, and small graphs.
#pragma once

#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "sim/control.h"

namespace atb_core::test {

using namespace ::atb;

constexpr int64_t kCount = 16;  // elements of the tensors here
constexpr uint64_t kBytes = kCount * sizeof(float);

inline bool says(const std::string& part) { return sim::last_message().find(part) != std::string::npos; }

inline infer::ElewiseParam add() {
  infer::ElewiseParam param;
  param.elewiseType = infer::ElewiseParam::ELEWISE_ADD;
  return param;
}

inline Operation* made() {
  Operation* operation = nullptr;
  CHECK(CreateOperation(add(), &operation) == NO_ERROR);
  return operation;
}

inline Status malloc_status(void** address, size_t bytes) {
  return aclrtMalloc(address, bytes, ACL_MEM_MALLOC_HUGE_FIRST);
}

// Device, stream and context, which are closed at the end of a test.
struct Card {
  aclrtStream stream = nullptr;
  Context* context = nullptr;
  std::vector<void*> memory;

  Card() {
    aclInit(nullptr);
    CHECK(aclrtSetDevice(0) == ACL_SUCCESS);
    CHECK(aclrtCreateStream(&stream) == ACL_SUCCESS);
    CHECK(CreateContext(&context) == NO_ERROR);
    CHECK(context->SetExecuteStream(stream) == NO_ERROR);
  }
  ~Card() {
    sim::clear_faults();
    if (context != nullptr) DestroyContext(context);
    if (stream != nullptr) aclrtDestroyStream(stream);
    for (void* address : memory) aclrtFree(address);
  }
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;

  void* allocate(size_t bytes) {
    void* address = nullptr;
    CHECK(malloc_status(&address, bytes) == ACL_SUCCESS);
    memory.push_back(address);
    return address;
  }
  void free_last() {
    CHECK(aclrtFree(memory.back()) == ACL_SUCCESS);
    memory.pop_back();
  }
  Tensor tensor(float value) {
    Tensor made;
    made.desc = {ACL_FLOAT, ACL_FORMAT_ND, {{kCount}, 1}};
    made.dataSize = kBytes;
    made.deviceData = allocate(kBytes);
    const std::vector<float> values(kCount, value);
    CHECK(aclrtMemcpy(made.deviceData, kBytes, values.data(), kBytes, ACL_MEMCPY_HOST_TO_DEVICE) == 0);
    return made;
  }
  // Two inputs and an output of zeros.
  VariantPack pack(float a, float b) {
    VariantPack pack;
    pack.inTensors.push_back(tensor(a));
    pack.inTensors.push_back(tensor(b));
    pack.outTensors.push_back(tensor(0.0f));
    return pack;
  }
  aclError wait() { return aclrtSynchronizeStream(stream); }
};

inline float first(const Tensor& tensor) {
  float value = NAN;
  CHECK(aclrtMemcpy(&value, sizeof value, tensor.deviceData, sizeof value, ACL_MEMCPY_DEVICE_TO_HOST) == ACL_SUCCESS);
  return value;
}

inline Node node_of(Operation* operation, SVector<uint32_t> in, SVector<uint32_t> out) {
  Node node;
  node.operation = operation;
  node.inTensorIds = in;
  node.outTensorIds = out;
  return node;
}

// ((a + b) + b) + b over two internal tensors.
inline GraphParam chain() {
  GraphParam graph;
  graph.name = "chain";
  graph.inTensorNum = 2;
  graph.outTensorNum = 1;
  graph.internalTensorNum = 2;
  graph.nodes = {node_of(made(), {0, 1}, {3}), node_of(made(), {3, 1}, {4}), node_of(made(), {4, 1}, {2})};
  return graph;
}

inline void release(const GraphParam& graph) {
  for (const Node& node : graph.nodes) CHECK(DestroyOperation(node.operation) == NO_ERROR);
}

}  // namespace atb_core::test
