// SPDX-License-Identifier: Apache-2.0
// Lowers one node of the registry and compares the result with ATB's inference.
#pragma once

#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atb/layout.h"
#include "atb/lowering.h"
#include "check.h"
#include "sim/control.h"
#include "sim/opapi.h"

namespace atb_core::test {

using ascend::Layout;

// The calls of aclnn are the simulator's.
inline const bool kSimulated = (ascend::find_aclnn_with(&::atb::sim::opapi_symbol), true);

struct Tensor {
  DataType dtype;
  std::vector<int64_t> shape;  // 0: a symbol
  TensorKind kind = TensorKind::input;
};

struct Node {
  std::string op;
  Attributes attributes;
  std::vector<Tensor> inputs, outputs;
};

// Outputs are used unless they are declared internal.
inline GraphSpec graph_of(const Node& node) {
  GraphSpec spec;
  spec.dims = {"tokens"};
  spec.nodes.push_back({node.op, "here", node.attributes, {}, {}});
  const auto add = [&](const Tensor& tensor, TensorKind kind) {
    SymbolicShape shape;
    for (int64_t size : tensor.shape) {
      shape.push_back(size == 0 ? DimExpr({{DimExpr::Op::dim, 0}}, 1) : DimExpr(size));
    }
    std::string name = "t";
    name += std::to_string(spec.tensors.size());
    spec.tensors.push_back({name, tensor.dtype, kind, shape});
    return static_cast<int>(spec.tensors.size()) - 1;
  };
  for (const Tensor& tensor : node.inputs) spec.nodes[0].inputs.push_back(add(tensor, tensor.kind));
  for (const Tensor& tensor : node.outputs) {
    const bool used = tensor.kind != TensorKind::internal;
    spec.nodes[0].outputs.push_back(add(tensor, used ? TensorKind::output : TensorKind::internal));
  }
  return spec;
}

// Device of the simulator with memory and a context for the preparation of operations.
class SimDevice {
 public:
  SimDevice() {
    aclInit(nullptr);
    aclrtSetDevice(0);
    aclrtCreateStream(&stream_);
    ::atb::CreateContext(&context_);
    context_->SetExecuteStream(stream_);
  }
  ~SimDevice() {
    for (void* data : memory_) aclrtFree(data);
    ::atb::DestroyContext(context_);
    aclrtDestroyStream(stream_);
  }
  SimDevice(const SimDevice&) = delete;
  SimDevice& operator=(const SimDevice&) = delete;

  ::atb::Context* context() { return context_; }
  void* allocate(size_t bytes) {
    memory_.push_back(nullptr);
    aclrtMalloc(&memory_.back(), bytes, ACL_MEM_MALLOC_HUGE_FIRST);
    return memory_.back();
  }

 private:
  aclrtStream stream_ = nullptr;
  ::atb::Context* context_ = nullptr;
  std::vector<void*> memory_;
};

class Lowered {
 public:
  // `formats` has those of inputs that are stored as integers.
  Lowered(const Node& node, const char* soc, std::map<int, ascend::QuantFormat> formats = {})
      : graph_(graph_of(node)), device_(ascend::find_device(soc)), formats_(std::move(formats)) {
    ::atb::sim::set_soc(soc);
    for (const TensorSpec& tensor : graph_.tensors()) read_.push_back(tensor.kind != TensorKind::internal);
    lowering_ = std::make_unique<ascend::Lowering>(graph_, graph_.nodes()[0], read_, device_, formats_);
    ascend::lower(*lowering_, node.op);
  }

  const ascend::Lowering& get() const { return *lowering_; }

  // "Elewise, Elewise"
  std::string names() const {
    std::string text;
    for (const ascend::LocalNode& node : lowering_->nodes()) text += (text.empty() ? "" : ", ") + node.name;
    return text;
  }

  // Returns "" if ATB creates and prepares all operations, with the shapes and types that the graph declares.
  std::string disagreement() {
    values_.assign(static_cast<size_t>(lowering_->num_values()), {});
    for (int i = 0; i < lowering_->num_inputs(); ++i) give(i, described(i));
    for (const auto& [id, part] : lowering_->parts()) {
      const TensorSpec& spec = lowering_->input(part.input);
      give(id, ascend::describe_part(formats_.at(part.input), spec.dtype, sizes(spec), part.layout));
    }
    // The result is meaningful only if ATB can run the operation.
    for (const ascend::LocalNode& node : lowering_->nodes()) {
      if (std::string what = check(node); !what.empty()) return node.name + ": " + what;
    }
    for (int i = 0; i < lowering_->num_outputs(); ++i) {
      if (!lowering_->output_used(i)) continue;
      const TensorSpec& spec = lowering_->output(i);
      if (!same(value(lowering_->out(i)).desc, ascend::describe_tensor(spec.dtype, sizes(spec), Layout::nd))) {
        return "output " + std::to_string(i) + " differs";
      }
    }
    return "";
  }

 private:
  static constexpr int64_t kTokens = 48;

  ::atb::Tensor& value(int id) { return values_[static_cast<size_t>(id)]; }

  static bool same(const ::atb::TensorDesc& a, const ::atb::TensorDesc& b) {
    return a.dtype == b.dtype && a.format == b.format && a.shape.dimNum == b.shape.dimNum &&
           std::equal(a.shape.dims, a.shape.dims + a.shape.dimNum, b.shape.dims);
  }

  static std::vector<int64_t> sizes(const TensorSpec& spec) {
    const int64_t tokens[] = {kTokens};
    std::vector<int64_t> result;
    for (const DimExpr& size : spec.shape) result.push_back(size.evaluate(tokens));
    return result;
  }

  ::atb::TensorDesc described(int input) const {
    const auto layout = lowering_->layouts().find(input);
    const TensorSpec& spec = lowering_->input(input);
    return ascend::describe_tensor(spec.dtype, sizes(spec),
                                   layout == lowering_->layouts().end() ? Layout::nd : layout->second);
  }

  // Gives a value its description and memory; lengths that ATB reads add up to the number of tokens.
  void give(int id, const ::atb::TensorDesc& desc) {
    value(id) = {desc, nullptr, nullptr, ::atb::Utils::GetTensorSize(desc)};
    value(id).deviceData = sim_.allocate(value(id).dataSize);
    if (!lowering_->host_inputs().contains(id)) return;
    const auto count = static_cast<size_t>(desc.shape.dims[0]);
    lengths_.push_back(std::vector<int32_t>(count, static_cast<int32_t>(kTokens / desc.shape.dims[0])));
    value(id).hostData = lengths_.back().data();
  }

  std::string check(const ascend::LocalNode& node) {
    ::atb::Operation* made = nullptr;
    if (node.create(&made) != ::atb::NO_ERROR) return "not made: " + ::atb::sim::last_message();
    const std::unique_ptr<::atb::Operation, void (*)(::atb::Operation*)> operation(made, ascend::destroy_operation);
    if (operation->GetInputNum() != node.inputs.size() || operation->GetOutputNum() != node.outputs.size()) {
      return "wrong number of tensors";
    }
    ::atb::SVector<::atb::TensorDesc> inputs, outputs;
    for (int id : node.inputs) inputs.push_back(value(id).desc);
    outputs.resize(node.outputs.size());
    if (operation->InferShape(inputs, outputs) != ::atb::NO_ERROR) return ::atb::sim::last_message();
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const int id = node.outputs[i];
      // An output that is an input is written in place.
      const bool in_place = std::find(node.inputs.begin(), node.inputs.end(), id) != node.inputs.end();
      if (in_place && !same(value(id).desc, outputs.at(i))) return "another tensor than the one written";
      if (!in_place) give(id, outputs.at(i));
    }
    return prepare(node, *operation);
  }

  // ATB checks element types, layouts and limits in Setup.
  std::string prepare(const ascend::LocalNode& node, ::atb::Operation& operation) {
    const auto pack = std::make_unique<::atb::VariantPack>();
    for (int id : node.inputs) pack->inTensors.push_back(value(id));
    for (int id : node.outputs) pack->outTensors.push_back(value(id));
    uint64_t workspace = 0;
    return operation.Setup(*pack, workspace, sim_.context()) == ::atb::NO_ERROR ? "" : ::atb::sim::last_message();
  }

  Graph graph_;
  const ascend::DeviceInfo& device_;
  const std::map<int, ascend::QuantFormat> formats_;
  std::vector<bool> read_;
  std::unique_ptr<ascend::Lowering> lowering_;
  SimDevice sim_;
  std::vector<::atb::Tensor> values_;
  std::deque<std::vector<int32_t>> lengths_;
};

// The node is refused with a message that names op, place and the reason.
inline void refused(const Node& node, const char* soc, const std::string& reason, int line,
                    const std::map<int, ascend::QuantFormat>& formats = {}) {
  try {
    Lowered lowered(node, soc, formats);
    report(__FILE__, line, node.op + " was not refused; it became " + lowered.names());
  } catch (const Error& error) {
    const std::string message = error.what();
    const bool placed = message.find(node.op + " at here cannot run on ") == 0;
    if (!placed || message.find(reason) == std::string::npos) {
      report(__FILE__, line, "message '" + message + "' lacks '" + reason + "' or the place");
    }
  }
}

}  // namespace atb_core::test

#define REFUSED(node, soc, reason) ::atb_core::test::refused(node, soc, reason, __LINE__)
