// SPDX-License-Identifier: Apache-2.0
#include "graph_operation.h"

#include <algorithm>
#include <cctype>
#include <ranges>

#include "ops/reject.h"
#include "state.h"

namespace atb::sim {
namespace {

constexpr uint32_t kMostTensors = 256;
constexpr size_t kMostNodes = 1024;
constexpr size_t kMostOperands = 64;
constexpr size_t kMostNameChars = 128;

Status check_name(const std::string& name) {
  const bool plain =
      std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  if (name.size() <= kMostNameChars && plain) return NO_ERROR;
  return reject(ERROR_INVALID_GRAPH, "graph '", name, "': a name has at most 128 letters, digits and underscores");
}

Status check_sizes(const GraphParam& param) {
  if (param.inTensorNum > kMostTensors || param.outTensorNum > kMostTensors || param.internalTensorNum > kMostTensors) {
    return reject(ERROR_INVALID_GRAPH, "graph ", param.name, ": more than 256 inputs, outputs or internals");
  }
  if (param.nodes.empty() || param.nodes.size() > kMostNodes) {
    return reject(ERROR_INVALID_GRAPH, "graph ", param.name, ": ", param.nodes.size(), " nodes, not 1 to 1024");
  }
  return NO_ERROR;
}

Status check_node(const std::string& who, const Node& node, const SimOperation& operation, uint32_t count) {
  if (node.inTensorIds.size() > kMostOperands || node.outTensorIds.size() > kMostOperands) {
    return reject(ERROR_INVALID_GRAPH, who, ": more than 64 operands, which ATB's vectors do not carry safely");
  }
  if (node.inTensorIds.size() != operation.GetInputNum() || node.outTensorIds.size() != operation.GetOutputNum()) {
    return reject(ERROR_INVALID_GRAPH, who, ": ", node.inTensorIds.size(), " inputs and ", node.outTensorIds.size(),
                  " outputs, the operation has ", operation.GetInputNum(), " and ", operation.GetOutputNum());
  }
  if (node.inTensorReshapeFuncs.size() > node.inTensorIds.size()) {
    return reject(ERROR_INVALID_GRAPH, who, ": ", node.inTensorReshapeFuncs.size(), " reshape functions for ",
                  node.inTensorIds.size(), " inputs");
  }
  if (!node.inTensorChunks.empty()) {
    return reject(ERROR_INVALID_GRAPH_NODE_CHUNK, who, ": the simulator has no chunks");
  }
  const auto known = [&](uint32_t id) { return id < count; };
  if (!std::all_of(node.inTensorIds.begin(), node.inTensorIds.end(), known) ||
      !std::all_of(node.outTensorIds.begin(), node.outTensorIds.end(), known)) {
    return reject(ERROR_INVALID_GRAPH, who, ": a tensor id is not below ", count);
  }
  return NO_ERROR;
}

bool contains(const SVector<uint32_t>& ids, uint32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// Checks that every tensor has a value before it is read, and that every output and internal tensor gets one. ATB only
// warns of one that gets another.
Status check_flow(const GraphParam& param, uint32_t count) {
  std::vector<bool> defined(count);
  std::fill_n(defined.begin(), param.inTensorNum, true);
  for (size_t i = 0; i < param.nodes.size(); ++i) {
    const Node& node = param.nodes[i];
    const std::string who = "graph " + param.name + ", node " + std::to_string(i);
    for (uint32_t id : node.inTensorIds) {
      if (!defined[id]) return reject(ERROR_INVALID_GRAPH, who, " reads tensor ", id, " before it has a value");
    }
    for (uint32_t id : node.outTensorIds) {
      if (defined[id] && !contains(node.inTensorIds, id)) {
        warn(who + " writes tensor " + std::to_string(id) + ", which has a value and is none of its inputs");
      }
      defined[id] = true;
    }
  }
  const auto open = std::find(defined.begin(), defined.end(), false);
  if (open == defined.end()) return NO_ERROR;
  return reject(ERROR_INVALID_GRAPH, "graph ", param.name, ": no node makes tensor ", open - defined.begin());
}

}  // namespace

Status GraphOperation::make(const GraphParam& param, std::unique_ptr<GraphOperation>& made) {
  ATB_SIM_TRY(check_name(param.name));
  ATB_SIM_TRY(check_sizes(param));
  std::unique_ptr<GraphOperation> graph(new GraphOperation(param));
  const Status status = graph->bind_operations();
  if (status != NO_ERROR) {
    graph->operations_.clear();  // the caller keeps them
    return status;
  }
  for (SimOperation* operation : graph->operations_) operation->set_owned(true);
  made = std::move(graph);
  return NO_ERROR;
}

GraphOperation::~GraphOperation() {
  for (SimOperation* operation : operations_) {
    const auto holds = [&](const auto& foreign) { return foreign.get() == operation; };
    if (std::none_of(foreign_.begin(), foreign_.end(), holds)) delete operation;
  }
}

Status GraphOperation::bind_operations() {
  for (size_t i = 0; i < param_.nodes.size(); ++i) {
    const std::string who = "graph " + param_.name + ", node " + std::to_string(i);
    Operation* given = param_.nodes[i].operation;
    if (given == nullptr) return reject(ERROR_INVALID_GRAPH, who, ": it has no operation");
    SimOperation* own = own_operation(given);
    const auto is_given = [&](size_t earlier) { return param_.nodes[earlier].operation == given; };
    if (const auto earlier = std::views::iota(size_t{0}, i); std::ranges::any_of(earlier, is_given)) {
      return reject(ERROR_INVALID_GRAPH, who, ": another node has the same operation, and both would own it");
    }
    if (own == nullptr) own = foreign_.emplace_back(std::make_unique<ForeignOperation>(given)).get();
    if (own->owned()) return reject(ERROR_INVALID_GRAPH, who, ": its operation is part of another graph");
    operations_.push_back(own);
    ATB_SIM_TRY(check_node(who, param_.nodes[i], *own, count()));
  }
  return check_flow(param_, count());
}

Status GraphOperation::reshape(size_t node, Descs& in) const {
  const SVector<ReshapeFunc>& functions = param_.nodes[node].inTensorReshapeFuncs;
  for (size_t i = 0; i < functions.size(); ++i) {
    if (!functions.at(i)) continue;
    Dims dims;
    functions.at(i)(in[i].shape, dims);
    TensorDesc viewed = in[i];
    viewed.shape = dims;
    const std::string who = "graph " + param_.name + ", node " + std::to_string(node) + ", input " + std::to_string(i);
    ATB_SIM_TRY(check_desc(who, viewed));
    if (desc_bytes(viewed) != desc_bytes(in[i])) {
      warn(who + ": " + describe(in[i]) + " was reshaped to " + describe(viewed) +
           ", which has another number of elements");
    }
    in[i] = viewed;
  }
  return NO_ERROR;
}

// Computes the descriptions of all tensors, node by node.
Status GraphOperation::walk(const Descs& in, std::vector<Step>& steps, Descs& values) const {
  values.assign(count(), TensorDesc());
  std::copy(in.begin(), in.end(), values.begin());
  for (size_t i = 0; i < param_.nodes.size(); ++i) {
    Step step;
    for (uint32_t id : param_.nodes[i].inTensorIds) step.in.push_back(values[id]);
    ATB_SIM_TRY(reshape(i, step.in));
    step.out.resize(param_.nodes[i].outTensorIds.size());
    ATB_SIM_TRY(operation(i).infer(step.in, step.out));
    for (size_t k = 0; k < step.out.size(); ++k) values[param_.nodes[i].outTensorIds.at(k)] = step.out[k];
    steps.push_back(std::move(step));
  }
  return NO_ERROR;
}

Status GraphOperation::infer(const Descs& in, Descs& out) const {
  if (param_.inferShapeFunc) {
    SVector<TensorDesc> given, made;
    given.reserve(in.size());
    given.resize(in.size());
    for (size_t i = 0; i < in.size(); ++i) given.at(i) = in[i];
    made.reserve(out.size());
    made.resize(out.size());
    if (param_.inferShapeFunc(given, made) != NO_ERROR) {
      return reject(ERROR_GRAPH_INFERSHAPE_FUNC_FAIL, "graph ", param_.name, ": its inferShapeFunc fails");
    }
    for (size_t i = 0; i < out.size(); ++i) out[i] = made.at(i);
    return NO_ERROR;
  }
  std::vector<Step> steps;
  Descs values;
  ATB_SIM_TRY(walk(in, steps, values));
  for (uint32_t i = 0; i < param_.outTensorNum; ++i) out[i] = values[param_.inTensorNum + i];
  return NO_ERROR;
}

// Places internals: those whose lives do not overlap share memory, so that an operation which reads too late reads
// other data.
std::vector<uint64_t> GraphOperation::place_internals(const Descs& values, uint64_t& bytes) const {
  struct Life {
    size_t first, last;
    uint64_t offset, size;
  };
  std::vector<Life> lives;
  std::vector<uint64_t> offsets;
  for (uint32_t id = first_internal(); id < count(); ++id) {
    Life life{param_.nodes.size(), 0, 0, (desc_bytes(values[id]) + 511) / 512 * 512};
    for (size_t i = 0; i < param_.nodes.size(); ++i) {
      const Node& node = param_.nodes[i];
      if (!contains(node.inTensorIds, id) && !contains(node.outTensorIds, id)) continue;
      life.first = std::min(life.first, i);
      life.last = i;
    }
    for (bool moved = true; moved;) {
      moved = false;
      for (const Life& other : lives) {
        const bool meet = life.first <= other.last && other.first <= life.last &&
                          life.offset < other.offset + other.size && other.offset < life.offset + life.size;
        if (!meet) continue;
        life.offset = other.offset + other.size;
        moved = true;
      }
    }
    bytes = std::max(bytes, life.offset + life.size);
    offsets.push_back(life.offset);
    lives.push_back(life);
  }
  return offsets;
}

Place GraphOperation::place_of(uint32_t id, const std::vector<uint64_t>& offsets, const TensorDesc& desc) const {
  if (id < param_.inTensorNum) return {Place::Kind::input, id, desc};
  if (id < first_internal()) return {Place::Kind::output, id - param_.inTensorNum, desc};
  return {Place::Kind::workspace, offsets[id - first_internal()], desc};
}

Status GraphOperation::schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                                Schedule& schedule) const {
  std::vector<Step> steps;
  Descs values;
  ATB_SIM_TRY(walk(in, steps, values));
  for (uint32_t i = 0; i < param_.outTensorNum; ++i) {  // inferShapeFunc may have returned another one
    if (desc_bytes(values[param_.inTensorNum + i]) == desc_bytes(out[i])) continue;
    return reject(ERROR_INVALID_TENSOR_DIM, "graph ", param_.name, ": output ", i, " is ", describe(out[i]),
                  ", but its node makes ", describe(values[param_.inTensorNum + i]));
  }
  uint64_t internals = 0, scratch = 0;
  const std::vector<uint64_t> offsets = place_internals(values, internals);
  for (size_t i = 0; i < steps.size(); ++i) {
    const Node& node = param_.nodes[i];
    std::vector<const int32_t*> given;
    for (uint32_t id : node.inTensorIds) given.push_back(id < param_.inTensorNum ? host[id] : nullptr);
    for (const auto& [made, input] : operation(i).in_place()) {
      if (node.outTensorIds.at(made) == node.inTensorIds.at(input)) continue;
      return reject(ERROR_INVALID_GRAPH, "graph ", param_.name, ", node ", i, ": output ", made,
                    " has to be the same tensor as input ", input);
    }
    Schedule part;
    ATB_SIM_TRY(operation(i).schedule(steps[i].in, steps[i].out, given, part));
    // The node's own tensors become the graph's; scratch memory of nodes lies behind the internals and is shared.
    const auto move = [&](std::vector<Place>& places) {
      for (Place& place : places) {
        if (place.kind == Place::Kind::workspace) {
          place.number += internals;
          continue;
        }
        const bool input = place.kind == Place::Kind::input;
        const uint32_t id = input ? node.inTensorIds.at(place.number) : node.outTensorIds.at(place.number);
        const bool host_only = place.host_only;
        place = place_of(id, offsets, place.desc);
        place.host_only = host_only;
      }
    };
    for (Launch& launch : part.launches) {
      move(launch.in);
      move(launch.out);
      schedule.launches.push_back(std::move(launch));
    }
    // The nodes of a graph run one after another, so the largest of their kernels' workspaces serves them all.
    scratch = std::max(scratch, part.workspace);
  }
  schedule.workspace = internals + scratch;
  return NO_ERROR;
}

}  // namespace atb::sim
