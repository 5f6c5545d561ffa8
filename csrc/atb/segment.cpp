// SPDX-License-Identifier: Apache-2.0
#include "atb/segment.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "atb/status.h"
#include "graph/op.h"

namespace atb_core::ascend {
namespace {

// ATB stores ids of up to 64 tensors inline and has had faults beyond that; its rules limit internals to 256.
constexpr size_t kMostOperands = 60;
constexpr int kMostInternals = 250;

// Numbers values while a segment is built: graph tensors with memory, and internals of operations.
class Numbering {
 public:
  Numbering(const SegmentContext& context, size_t begin, size_t end) : context_(context), begin_(begin), end_(end) {}

  // Lowers the nodes; returns false if the segment becomes too large.
  bool lower_nodes(Segment& segment) {
    for (size_t i = begin_; i < end_; ++i) {
      const Graph::Node& node = context_.graph.nodes()[i];
      if (node.op_signature->always_view) continue;
      lower_node(node, segment);
    }
    return finish(segment);
  }

 private:
  // A value before the final numbering: an operand of the segment, or made within it.
  enum class Kind { input, produced, internal };
  struct Value {
    Kind kind;
    int number;  // of the input, or of the tensor, or of the internal
  };

  void lower_node(const Graph::Node& node, Segment& segment) {
    Lowering lowering(context_.graph, node, context_.read, context_.device, context_.formats);
    lower(lowering, node.op);
    const int first_internal = internals_;
    const int fixed = lowering.num_inputs() + lowering.num_outputs();
    internals_ += lowering.num_values() - fixed;
    const auto value = [&](int local) {
      if (local < lowering.num_inputs()) return input(node, local, lowering, segment);
      const auto part = lowering.parts().find(local);
      if (part != lowering.parts().end()) return weight_part(node, part->second, lowering, segment);
      if (local >= fixed) return Value{Kind::internal, first_internal + local - fixed};
      return produce(node.outputs[static_cast<size_t>(local - lowering.num_inputs())]);
    };
    for (const auto& [lengths, rows] : lowering.sums()) {
      const int place = input(node, lengths, lowering, segment).number;
      segment.sums.push_back({place, node.inputs[static_cast<size_t>(rows)], &node});
    }
    for (const LocalNode& local : lowering.nodes()) {
      Segment::Step step{local, &node, {}};
      for (int& id : step.node.inputs) {
        step.views.push_back(view_of(node, id, lowering));
        id = keep(value(id));
      }
      for (int& id : step.node.outputs) id = keep(value(id));
      segment.steps.push_back(std::move(step));
    }
  }

  // Returns the shape in which an operation reads an input whose memory belongs to another tensor.
  const SymbolicShape* view_of(const Graph::Node& node, int local, const Lowering& lowering) const {
    if (local >= lowering.num_inputs()) return nullptr;
    const int tensor = node.inputs[static_cast<size_t>(local)];
    if (context_.roots[static_cast<size_t>(tensor)] == tensor) return nullptr;
    if (lowering.layouts().contains(local) && lowering.layouts().at(local) == Layout::nz) {
      lowering.refuse("input ", local, " is a view of a tensor in FRACTAL_NZ");
    }
    return &context_.graph.tensor(tensor).shape;
  }

  Value input(const Graph::Node& node, int local, const Lowering& lowering, Segment& segment) {
    const int root = context_.roots[static_cast<size_t>(node.inputs[static_cast<size_t>(local)])];
    const bool on_host = lowering.host_inputs().contains(local);
    lowering.require(!on_host || context_.graph.tensor(root).kind == TensorKind::input, "ATB reads input ", local,
                     " on the host, so it has to be an input of the network");
    if (produced_.contains(root)) return {Kind::produced, root};
    const auto layout = lowering.layouts().find(local);
    const Value value = operand({root, layout == lowering.layouts().end() ? Layout::nd : layout->second}, segment);
    if (on_host) segment.inputs[static_cast<size_t>(value.number)].host_data = true;
    return value;
  }

  Value weight_part(const Graph::Node& node, const WeightPart& part, const Lowering& lowering, Segment& segment) {
    const int tensor = node.inputs[static_cast<size_t>(part.input)];
    return operand({tensor, part.layout, false, *lowering.quantized(part.input)}, segment);
  }

  // Returns an operand of the segment, which is added if it is new.
  Value operand(const Segment::Operand& operand, Segment& segment) {
    const auto [found, fresh] = inputs_.try_emplace(operand, static_cast<int>(segment.inputs.size()));
    if (fresh) segment.inputs.push_back(operand);
    return {Kind::input, found->second};
  }

  Value produce(int tensor) {
    produced_.insert(tensor);
    return {Kind::produced, tensor};
  }

  int keep(Value value) {
    values_.push_back(value);
    return static_cast<int>(values_.size()) - 1;
  }

  bool is_output(int tensor) const { return context_.last_read[static_cast<size_t>(tensor)] >= end_; }

  // Numbers inputs first, then outputs, then internals.
  bool finish(Segment& segment) {
    std::map<int, int> produced;
    for (int tensor : produced_) {
      if (!is_output(tensor)) continue;
      produced[tensor] = static_cast<int>(segment.inputs.size() + segment.outputs.size());
      segment.outputs.push_back({tensor});
    }
    const int first = static_cast<int>(segment.inputs.size() + segment.outputs.size());
    int next = first;
    std::map<int, int> internals;
    const auto number = [&](int id) {
      const Value& value = values_[static_cast<size_t>(id)];
      if (value.kind == Kind::input) return value.number;
      auto& known = value.kind == Kind::produced ? produced : internals;
      const auto [found, fresh] = known.try_emplace(value.number, next);
      if (fresh) ++next;
      return found->second;
    };
    for (Segment::Step& step : segment.steps) {
      for (int& id : step.node.inputs) id = number(id);
      for (int& id : step.node.outputs) id = number(id);
    }
    segment.num_internals = next - first;
    return segment.inputs.size() <= kMostOperands && segment.outputs.size() <= kMostOperands &&
           segment.num_internals <= kMostInternals;
  }

  const SegmentContext& context_;
  const size_t begin_, end_;
  std::map<Segment::Operand, int> inputs_;
  std::set<int> produced_;
  std::vector<Value> values_;
  int internals_ = 0;
};

std::string attribute_text(const Attribute& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const int64_t* number = std::get_if<int64_t>(&value)) return std::to_string(*number);
  if (const double* number = std::get_if<double>(&value)) {
    // Writes all bits: two epsilons may differ in the last one.
    char text[32];
    std::snprintf(text, sizeof text, "%a", *number);
    return text;
  }
  if (const std::string* text = std::get_if<std::string>(&value)) return *text;
  return shape_text(std::get<std::vector<int64_t>>(value));
}

void append_tensor(std::string& text, const TensorSpec& tensor) {
  text += name(tensor.dtype);
  for (const DimExpr& size : tensor.shape) text += '[' + size.key() + ']';
  text += ' ';
}

}  // namespace

BuiltOperation::~BuiltOperation() {
  if (operation_ == nullptr || (device_ != nullptr && device_->is_shut())) return;
  destroy_operation(operation_);
}

std::vector<int> memory_roots(const Graph& graph) {
  std::vector<int> roots(graph.tensors().size());
  for (size_t i = 0; i < roots.size(); ++i) roots[i] = static_cast<int>(i);
  for (const Graph::Node& node : graph.nodes()) {
    if (!node.op_signature->always_view) continue;
    roots[static_cast<size_t>(node.outputs[0])] = roots[static_cast<size_t>(node.inputs[0])];
  }
  return roots;
}

SegmentContext segment_context(const Graph& graph, const DeviceInfo& device) {
  const size_t tensors = graph.tensors().size(), nodes = graph.nodes().size();
  SegmentContext context{graph, device, memory_roots(graph), std::vector<bool>(tensors), std::vector<size_t>(tensors),
                         {}};
  for (size_t i = 0; i < nodes; ++i) {
    for (int id : graph.nodes()[i].inputs) {
      context.read[static_cast<size_t>(id)] = true;
      context.last_read[static_cast<size_t>(context.roots[static_cast<size_t>(id)])] = i;
    }
  }
  for (size_t i = 0; i < tensors; ++i) {
    if (graph.tensors()[i].kind != TensorKind::output) continue;
    context.read[i] = true;
    context.last_read[static_cast<size_t>(context.roots[i])] = nodes;
  }
  return context;
}

void lower_segments(const SegmentContext& context, size_t begin, size_t end, std::vector<Segment>& segments) {
  Segment segment;
  if (!Numbering(context, begin, end).lower_nodes(segment)) {
    if (end - begin < 2) {
      fail(describe(context.graph.nodes()[begin]), " has more operands than an operation of ATB can take");
    }
    const size_t middle = begin + (end - begin) / 2;
    lower_segments(context, begin, middle, segments);
    lower_segments(context, middle, end, segments);
    return;
  }
  if (segment.steps.empty()) return;
  segment.label = context.graph.nodes()[begin].label;
  segments.push_back(std::move(segment));
}

std::string Segment::signature(const Graph& graph) const {
  std::string text;
  for (const Operand& operand : inputs) {
    append_tensor(text, graph.tensor(operand.tensor));
    text += std::to_string(static_cast<int>(operand.layout)) + ' ';
    const QuantFormat& format = operand.format;
    if (format.bits > 0) text += std::to_string(format.bits) + '/' + std::to_string(format.group) + ' ';
  }
  for (const Operand& operand : outputs) append_tensor(text += "-> ", graph.tensor(operand.tensor));
  for (const Step& step : steps) {
    text += '\n' + step.source->op + ' ' + step.node.name;
    for (const auto& [name, value] : step.source->attributes) text += ' ' + name + '=' + attribute_text(value);
    for (size_t i = 0; i < step.node.inputs.size(); ++i) {
      text += ' ' + std::to_string(step.node.inputs[i]);
      if (step.views[i] == nullptr) continue;
      for (const DimExpr& size : *step.views[i]) text += '[' + size.key() + ']';
    }
    text += " ->";
    for (int id : step.node.outputs) text += ' ' + std::to_string(id);
    // The type of an internal is that of the node's output.
    for (int id : step.source->outputs) append_tensor(text += ' ', graph.tensor(id));
  }
  return text;
}

std::shared_ptr<const BuiltOperation> build_operation(const Segment& segment, const std::string& graph_name,
                                                      const Sizes& sizes, const Device& device) {
  ::atb::GraphParam param;
  param.name = graph_name;
  param.inTensorNum = static_cast<uint32_t>(segment.inputs.size());
  param.outTensorNum = static_cast<uint32_t>(segment.outputs.size());
  param.internalTensorNum = static_cast<uint32_t>(segment.num_internals);
  // Once the graph exists it owns the operations of its nodes; until then this code does.
  std::vector<std::unique_ptr<BuiltOperation>> owned;
  param.nodes.resize(segment.steps.size());
  for (size_t i = 0; i < segment.steps.size(); ++i) {
    const Segment::Step& step = segment.steps[i];
    ::atb::Node& node = param.nodes[i];
    check_atb(step.node.create(&node.operation), "ATB refuses the parameters of ", step.node.name,
              ", which is made of ", describe(*step.source));
    owned.push_back(std::make_unique<BuiltOperation>(node.operation));
    for (int id : step.node.inputs) node.inTensorIds.push_back(static_cast<uint32_t>(id));
    for (int id : step.node.outputs) node.outTensorIds.push_back(static_cast<uint32_t>(id));
    if (std::all_of(step.views.begin(), step.views.end(), [](const auto* view) { return view == nullptr; })) continue;
    node.inTensorReshapeFuncs.resize(step.views.size());
    for (size_t k = 0; k < step.views.size(); ++k) {
      if (step.views[k] == nullptr) continue;
      node.inTensorReshapeFuncs.at(k) = [shape = *step.views[k], sizes](const ::atb::Dims&, ::atb::Dims& dims) {
        dims.dimNum = shape.size();
        for (size_t axis = 0; axis < shape.size(); ++axis) dims.dims[axis] = shape[axis].evaluate(*sizes);
      };
    }
  }
  ::atb::Operation* operation = nullptr;
  check_atb(::atb::CreateOperation(param, &operation), "ATB refuses the graph of ", segment.label);
  for (auto& node : owned) node->release();
  return std::make_shared<const BuiltOperation>(operation, &device);
}

}  // namespace atb_core::ascend
