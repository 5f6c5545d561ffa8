// SPDX-License-Identifier: Apache-2.0
// The interface between models and the backends that run their graphs. Implementations: cpu/engine/graph_backend.h and
// atb/graph_backend.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atb_core/types.h"
#include "graph/arguments.h"
#include "graph/graph.h"

namespace atb_core {

// A graph that runs. The methods are those of Program (cpu/engine/program.h).
class GraphProgram {
 public:
  virtual ~GraphProgram() = default;
  virtual void set(const std::vector<Argument>& arguments) = 0;
  // Sets inputs that keep their values until set again. The caller keeps their memory alive and does not write to it.
  virtual void set_constants(const std::vector<Argument>& arguments) = 0;
  virtual bool run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted) = 0;
  virtual std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments) = 0;
};

// Builds programs over one set of weights.
class GraphBackend {
 public:
  virtual ~GraphBackend() = default;
  // Builds a program. `segments` has a number for each node: consecutive nodes of one number may become one operation.
  virtual std::unique_ptr<GraphProgram> build(GraphSpec spec, const std::vector<int>& segments) = 0;
  // Copies a weight from the memory of the host.
  virtual void set_weight(const std::string& name, const TensorView& weight) = 0;
};

// Adapts a program of an engine, which has methods of the same names.
template <typename Engine>
class ProgramOf : public GraphProgram {
 public:
  template <typename... Args>
  explicit ProgramOf(Args&&... args) : program_(std::forward<Args>(args)...) {}

  void set(const std::vector<Argument>& arguments) override { program_.set(arguments); }
  void set_constants(const std::vector<Argument>& arguments) override {
    if constexpr (requires { program_.set_constants(arguments); }) {
      program_.set_constants(arguments);
    } else {
      program_.set(arguments);
    }
  }
  bool run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted) override {
    return program_.run(arguments, interrupted);
  }
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments) override {
    return program_.output_shapes(arguments);
  }

 private:
  Engine program_;
};

}  // namespace atb_core
