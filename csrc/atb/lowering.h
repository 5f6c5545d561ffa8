// SPDX-License-Identifier: Apache-2.0
// Lowers ops to operations of ATB: one function for each op, listed in one table.
#pragma once

#include <atb/atb_infer.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "atb/aclnn_operation.h"
#include "atb/device_table.h"
#include "atb/quant_format.h"
#include "atb_core/error.h"
#include "graph/graph.h"

namespace atb_core::ascend {

// The layout of a tensor on the device: in rows, in the blocks of FRACTAL_NZ, or (a matrix [n, k]) in rows of [k, n];
// in rows, but with 1 in place of each value that is not 0; and the parts of a matrix that is stored as integers.
enum class Layout { nd, nz, transposed, ones, integers, scales, offsets };

// One ATB operation. Values are numbered within the node that it comes from, see Lowering.
struct LocalNode {
  std::string name;  // "Linear"
  std::function<::atb::Status(::atb::Operation**)> create;
  std::vector<int> inputs, outputs;
};

// A part of an input that is stored as integers.
struct WeightPart {
  int input;
  Layout layout;
};

// A node of the graph while it is lowered, and the operations that it becomes. Values are numbered: the inputs, then
// the outputs, then the results of internal(). An operation that writes an input in place names it among its outputs.
class Lowering {
 public:
  // `formats` has those of weights that are stored as integers, by tensor.
  Lowering(const Graph& graph, const Graph::Node& node, const std::vector<bool>& read, const DeviceInfo& device,
           const std::map<int, QuantFormat>& formats = {})
      : graph_(graph),
        node_(node),
        read_(read),
        device_(device),
        formats_(formats),
        values_(num_inputs() + num_outputs()) {}

  int num_inputs() const { return static_cast<int>(node_.inputs.size()); }
  int num_outputs() const { return static_cast<int>(node_.outputs.size()); }
  int in(int index) const { return index; }
  int out(int index) const { return num_inputs() + index; }
  int internal() { return values_++; }
  // Returns the value of a part of an input that is stored as integers.
  int part(int index, Layout layout) {
    parts_.emplace(values_, WeightPart{index, layout});
    return values_++;
  }
  // Returns the format of such an input, null for any other.
  const QuantFormat* quantized(int index) const;

  const TensorSpec& input(int index) const { return graph_.tensor(node_.inputs[static_cast<size_t>(index)]); }
  const TensorSpec& output(int index) const { return graph_.tensor(node_.outputs[static_cast<size_t>(index)]); }
  int rank(int input_index) const { return static_cast<int>(input(input_index).shape.size()); }
  // Returns the size of an input if it is a number, nothing if it is symbolic.
  std::optional<int64_t> size(int input_index, int axis) const;
  // Returns true if two inputs are one tensor.
  bool same(int one, int other) const {
    return node_.inputs[static_cast<size_t>(one)] == node_.inputs[static_cast<size_t>(other)];
  }
  // Returns true if only ops of this name read the input.
  bool read_only_by(int index, std::string_view op) const;
  // Returns true if a node reads the output.
  bool output_used(int index) const { return read_[static_cast<size_t>(node_.outputs[static_cast<size_t>(index)])]; }

  bool flag(std::string_view name) const { return get<bool>(name); }
  int64_t integer(std::string_view name) const { return get<int64_t>(name); }
  float number(std::string_view name) const { return static_cast<float>(get<double>(name)); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<int64_t>& list(std::string_view name) const { return get<std::vector<int64_t>>(name); }

  const DeviceInfo& device() const { return device_; }

  // Declares that ATB reads this input on the host when it prepares the operation. It has to be an input of the graph.
  void host_data(int index) { host_inputs_.insert(index); }
  // Declares that these lengths have to add up to the rows of another input.
  void lengths_of(int lengths, int rows) { sums_[lengths] = rows; }
  // Declares the layout of an input: a weight, a cache or a mask.
  void layout(int index, Layout layout) { layouts_[index] = layout; }

  // Adds an operation over values; `param` is one of ATB's parameter structs.
  template <typename Param>
  void add(const char* name, const Param& param, std::vector<int> inputs, std::vector<int> outputs) {
    // Shared: some parameter structs are kilobytes, and the function may be called for each layer.
    const auto kept = std::make_shared<const Param>(param);
    nodes_.push_back({name, [kept](::atb::Operation** made) { return ::atb::CreateOperation(*kept, made); },
                      std::move(inputs), std::move(outputs)});
  }

  // Adds a call of aclnn. Throws Error if the library of CANN has none of this name.
  void add_call(AclnnParam param, std::vector<int> inputs, std::vector<int> outputs);

  // Throws Error with the op, its label and the reason.
  template <typename... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(describe(node_), " cannot run on ", device_.name, ": ", parts...);
  }
  template <typename... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) refuse(parts...);
  }

  // The results.
  const std::vector<LocalNode>& nodes() const { return nodes_; }
  int num_values() const { return values_; }
  const std::set<int>& host_inputs() const { return host_inputs_; }
  const std::map<int, int>& sums() const { return sums_; }
  const std::map<int, Layout>& layouts() const { return layouts_; }
  const std::map<int, WeightPart>& parts() const { return parts_; }

 private:
  template <typename T>
  const T& get(std::string_view name) const {
    return std::get<T>(node_.attributes.find(name)->second);
  }

  const Graph& graph_;
  const Graph::Node& node_;
  const std::vector<bool>& read_;
  const DeviceInfo& device_;
  const std::map<int, QuantFormat> formats_;  // a copy: few nodes have any
  int values_;
  std::vector<LocalNode> nodes_;
  std::set<int> host_inputs_;
  std::map<int, int> sums_;
  std::map<int, Layout> layouts_;
  std::map<int, WeightPart> parts_;
};

// The lowering of an op, and its limits for the documentation.
struct LoweringRule {
  const char* op;  // the op's name
  void (*lower)(Lowering&);
  const char* becomes;          // names of ATB's operations
  std::vector<DataType> types;  // of the first input, on a 910B; the function checks limits that depend on attributes
  const char* limits;           // one line
};

// Returns the rules of all ops that this backend runs. Reshape has none: ATB has no operation for a view.
const std::vector<LoweringRule>& lowering_rules();

// Lowers an op after the checks that all ops share. Throws Error for an op without a rule, and for element types that
// the device or the op does not support.
void lower(Lowering& lowering, std::string_view op);

}  // namespace atb_core::ascend
