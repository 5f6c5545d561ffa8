// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atb_core/fork_safe_mutex.h"
#include "atb_core/model.h"
#include "models/graph_backend.h"

namespace atb_core {

// Runs a model's graph on a backend. The program is built once the weights are declared: sizes follow from their
// shapes.
class GraphModelEngine : public ModelEngine {
 public:
  explicit GraphModelEngine(std::shared_ptr<GraphBackend> backend) : backend_(std::move(backend)) {}

  void build(const ModelGraph& graph) override;
  void set_weights(const std::vector<TensorView>& weights) override;
  void set_caches(const std::vector<TensorView>& keys, const std::vector<TensorView>& values) override;
  void run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) override;
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<TensorView>& inputs) override;

  // Declares all weights by shape and type, under names that the caller chooses; equal names are one weight. The data
  // then goes to the backend by these names, one tensor at a time. set_weights() does both.
  void declare_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights);

  // Shares the weights of `other`. The graphs must have the same weights.
  void share_weights(const GraphModelEngine& other);

  // Sets the inputs that have data as constants: later steps may leave them out. An input that comes with a step is no
  // constant any more. A device copies a constant once. The caller keeps the memory alive.
  void set_constants(const std::vector<TensorView>& inputs);

  const std::vector<std::string>& input_names() const { return input_names_; }
  // Called regularly while a step runs; if it returns true, the step ends and run() throws Error.
  std::function<bool()> interrupted;

 private:
  // Name, type and shape of a weight: enough to compare the weights of two models and to resolve sizes.
  struct GivenWeight {
    std::string stored_as;
    DataType dtype;
    std::vector<int64_t> shape;
    bool operator==(const GivenWeight&) const = default;
  };

  void take_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights);
  void make_program(std::shared_ptr<GraphBackend> backend, const std::vector<GivenWeight>& weights);
  void check_count(const std::vector<int>& tensors, const std::vector<TensorView>& views, const char* what) const;
  bool is_read(int tensor) const { return ids_[static_cast<size_t>(tensor)] >= 0; }
  // Returns the program's arguments from `views`, without tensors that no node reads and without constants that are
  // left out.
  std::vector<Argument> arguments(const std::vector<int>& tensors, const std::vector<TensorView>& views,
                                  const char* what) const;
  Argument argument(int tensor, const TensorView& view, const std::string& what) const;
  void bind_constants(const std::map<int, TensorView>& constants);

  mutable ForkSafeMutex mutex_;  // guards the members below; held while a step runs
  std::shared_ptr<GraphBackend> backend_;
  ModelGraph graph_;
  std::vector<int> inputs_, outputs_, caches_;
  std::vector<std::string> input_names_;
  std::vector<GivenWeight> weights_;
  std::vector<int> ids_;
  std::vector<TensorView> given_caches_;  // in the order of the graph
  std::map<int, TensorView> constants_;   // by number in the graph
  std::unique_ptr<GraphProgram> program_;
};

}  // namespace atb_core
