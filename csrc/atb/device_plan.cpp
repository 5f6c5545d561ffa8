// SPDX-License-Identifier: Apache-2.0
#include "atb/device_plan.h"

#include <algorithm>

#include "graph/arena.h"

namespace atb_core::ascend {

DevicePlan::DevicePlan(const SegmentContext& context, const std::vector<Segment>& segments,
                       const std::vector<bool>& staged, std::vector<int64_t> sizes)
    : sizes_(std::move(sizes)), staged_(staged), homes_(context.roots) {
  for (const TensorSpec& tensor : context.graph.tensors()) {
    std::vector<int64_t>& shape = shapes_.emplace_back();
    for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate(sizes_));
    const bool empty = std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size <= 0; });
    if (empty || shape.empty()) {
      fail("'", tensor.name, "' would be ", shape_text(shape), ": ATB takes no tensors without ",
           empty ? "elements" : "dimensions");
    }
    bytes_.push_back(tensor_bytes(tensor.dtype, shape));
  }
  place_outputs(context);
  place_arena(context, segments);
  for (const Segment& segment : segments) {
    Descs& descs = descs_.emplace_back();
    const auto describe_operand = [&](const Segment::Operand& operand) {
      const size_t id = static_cast<size_t>(operand.tensor);
      const DataType dtype = context.graph.tensors()[id].dtype;
      if (operand.format.bits > 0) return describe_part(operand.format, dtype, shapes_[id], operand.layout);
      return describe_tensor(dtype, shapes_[id], operand.layout);
    };
    for (const Segment::Operand& operand : segment.inputs) descs.inputs.push_back(describe_operand(operand));
    for (const Segment::Operand& operand : segment.outputs) descs.outputs.push_back(describe_operand(operand));
  }
}

// An output that is a view: the original is made in the output's memory if no other output uses it; otherwise it is
// copied.
void DevicePlan::place_outputs(const SegmentContext& context) {
  const std::vector<TensorSpec>& tensors = context.graph.tensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int id = static_cast<int>(i), root = context.roots[i];
    if (tensors[i].kind != TensorKind::output || root == id) continue;
    if (tensors[static_cast<size_t>(root)].kind == TensorKind::internal && homes_[static_cast<size_t>(root)] == root) {
      homes_[static_cast<size_t>(root)] = id;
    } else {
      copies_.push_back({root, id});
    }
    homes_[i] = id;
  }
}

void DevicePlan::place_inputs(const SegmentContext& context, const std::vector<Segment>& segments) {
  const auto add = [&](int tensor) {
    if (context.graph.tensor(tensor).kind != TensorKind::input || !is_staged(tensor)) return;
    if (offsets_.try_emplace(tensor, input_bytes_).second) {
      input_bytes_ += align_up(bytes_[static_cast<size_t>(tensor)]);
    }
  };
  for (const Segment& segment : segments) {
    for (const Segment::Operand& operand : segment.inputs) add(operand.tensor);
  }
  for (const Copy& copy : copies_) add(copy.from);
}

void DevicePlan::place_arena(const SegmentContext& context, const std::vector<Segment>& segments) {
  place_inputs(context, segments);
  // Outputs that are copied at the end live until after the last segment.
  const int after = static_cast<int>(segments.size());
  std::map<int, Lifetime> lives;
  const auto touch = [&](int tensor, int when) {
    const int home = homes_[static_cast<size_t>(tensor)];
    const TensorSpec& spec = context.graph.tensor(home);
    const bool external = spec.kind == TensorKind::input || spec.kind == TensorKind::output;
    if (spec.kind == TensorKind::weight || spec.kind == TensorKind::input || (external && !is_staged(home))) return;
    const int end = spec.kind == TensorKind::output ? after : when;
    const auto [found, fresh] = lives.try_emplace(home, Lifetime{bytes_[static_cast<size_t>(home)], when, end});
    if (!fresh) found->second.last = std::max(found->second.last, end);
  };
  for (int step = 0; step < after; ++step) {
    for (const Segment::Operand& operand : segments[static_cast<size_t>(step)].inputs) touch(operand.tensor, step);
    for (const Segment::Operand& operand : segments[static_cast<size_t>(step)].outputs) touch(operand.tensor, step);
  }
  for (const Copy& copy : copies_) {
    touch(copy.from, after);
    touch(copy.to, after);
  }
  std::vector<Lifetime> values;
  for (const auto& [tensor, life] : lives) values.push_back(life);
  const Placement placement = place(values);
  size_t next = 0;
  for (const auto& [tensor, life] : lives) offsets_[tensor] = input_bytes_ + placement.offsets[next++];
  arena_bytes_ = input_bytes_ + placement.bytes;
}

}  // namespace atb_core::ascend
