// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "atb_core/model.h"
#include "graph/program.h"

namespace atb_core {

// Runs a model's graph with the CPU engine. The program is made when the weights are there: they tell the sizes.
class CpuModelEngine : public ModelEngine {
 public:
  CpuModelEngine(std::shared_ptr<Runtime> runtime, std::shared_ptr<WeightStore> store)
      : runtime_(std::move(runtime)), store_(std::move(store)) {}

  void build(const ModelGraph& graph) override;
  void set_weights(const std::vector<TensorView>& weights) override;
  void set_caches(const std::vector<TensorView>& keys, const std::vector<TensorView>& values) override;
  void run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) override;
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<TensorView>& inputs) override;

  // Announces all weights by shape and type, under names of the caller's; equal names are one weight. The data then
  // comes into the store by these names, tensor by tensor: what set_weights() does with all of them at once.
  void declare_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights);

  // Takes the weights that `other` has been given, which both then share. The graphs must have the same weights.
  void share_weights(const CpuModelEngine& other);

  const std::vector<std::string>& input_names() const { return input_names_; }
  // Asked from time to time while a step runs; true ends it, and run() throws Error.
  std::function<bool()> interrupted;

 private:
  // A weight as it was given: enough to compare two models and to resolve the sizes of one.
  struct GivenWeight {
    std::string stored_as;
    DataType dtype;
    std::vector<int64_t> shape;
  };

  void make_program();
  std::vector<Argument> arguments(const std::vector<int>& tensors, const std::vector<TensorView>& views,
                                  const char* what) const;

  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<WeightStore> store_;
  ModelGraph graph_;
  std::vector<int> inputs_, outputs_, caches_;
  std::vector<std::string> input_names_;
  std::vector<GivenWeight> weights_;
  std::vector<int> ids_;
  std::vector<Argument> given_caches_;
  std::unique_ptr<Program> program_;
};

}  // namespace atb_core
