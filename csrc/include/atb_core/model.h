// SPDX-License-Identifier: Apache-2.0
// Models whose graph is written in C++. A model is a class with a constructor from a JSON string and BuildGraph();
// REGISTER_MODEL registers it as "<namespace>_<class>". Header only: a shared library that includes this file and uses
// ATB_NATIVE_LIBRARY() once can add models (docs/cpp-models.md).
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "atb_core/model_graph.h"

namespace atb_core {

// Changes when a library built with older headers cannot be used. Models cross the boundary as C++ objects, so the
// number also distinguishes standard libraries with other layouts: negative with libstdc++'s old strings, 1000 more for
// libstdc++ with _GLIBCXX_DEBUG, 2000 more for libc++.
inline constexpr int kModelVersion = 2;
#if defined(_LIBCPP_VERSION)
inline constexpr int kModelAbi = kModelVersion + 2000;
#elif defined(_GLIBCXX_DEBUG)
inline constexpr int kModelAbi = kModelVersion + 1000;
#elif defined(_GLIBCXX_USE_CXX11_ABI) && !_GLIBCXX_USE_CXX11_ABI
inline constexpr int kModelAbi = -kModelVersion;
#else
inline constexpr int kModelAbi = kModelVersion;
#endif

// The engine that runs a model. The core implements it for each backend.
class ModelEngine {
 public:
  virtual ~ModelEngine() = default;
  virtual void build(const ModelGraph& graph) = 0;
  // Copies all weights, in the order of ModelGraph::weight. A tensor that occurs twice is stored once.
  virtual void set_weights(const std::vector<TensorView>& weights) = 0;
  // Sets all caches, those of keys before those of values. The caller keeps them alive. They lie where the engine
  // computes.
  virtual void set_caches(const std::vector<TensorView>& keys, const std::vector<TensorView>& values) = 0;
  // Runs one step. Inputs are in the order of ModelGraph::input; an input that the graph does not read may have no
  // data.
  virtual void run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) = 0;
  virtual std::vector<std::vector<int64_t>> output_shapes(const std::vector<TensorView>& inputs) = 0;
};

class Model {
 public:
  explicit Model(std::string name) : name_(std::move(name)) {}
  virtual ~Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const std::string& name() const { return name_; }
  const ModelGraph& graph() const { return graph_; }
  // Returns the engine. Throws before Init() is done: there is none while the graph is built.
  ModelEngine& engine() {
    if (!engine_) throw std::runtime_error("the model " + name_ + " has no engine yet");
    return *engine_;
  }

  // Records the graph and passes it to the engine. Throws std::runtime_error if the graph is not valid.
  void Init(std::unique_ptr<ModelEngine> engine) {
    graph_ = ModelGraph();
    BuildGraph(graph_);
    engine->build(graph_);
    engine_ = std::move(engine);
  }

  // Runs one step. `param` is the step's JSON; a model may read it before the engine runs, and the inputs that lie on
  // the host.
  virtual void Execute(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs,
                       const std::string& param) {
    static_cast<void>(param);
    engine().run(inputs, outputs);
  }

 protected:
  virtual void BuildGraph(ModelGraph& graph) = 0;

 private:
  std::string name_;
  ModelGraph graph_;
  std::unique_ptr<ModelEngine> engine_;
};

using ModelCreator = std::function<std::shared_ptr<Model>(const std::string& param)>;

struct ModelRegistration {
  std::string name;
  ModelCreator create;
};

// Returns the models that this shared library (or the core) registers. Hidden: each library has a list of its own,
// which the core takes over when it loads the library.
__attribute__((visibility("hidden"))) inline std::vector<ModelRegistration>& LocalModels() {
  static std::vector<ModelRegistration> models;
  return models;
}

}  // namespace atb_core

// Registers the class `model` as "name_model". Use it once for each model, in the namespace of the class.
#define REGISTER_MODEL(name, model)                                                                   \
  [[maybe_unused]] static const bool registered_##name##_##model = [] {                               \
    ::atb_core::LocalModels().push_back(                                                              \
        {#name "_" #model, [](const std::string& param) { return std::make_shared<model>(param); }}); \
    return true;                                                                                      \
  }()

// Defines the function through which the core gets the library's models. Use it once in a shared library.
#define ATB_NATIVE_LIBRARY()                                                                                        \
  extern "C" __attribute__((visibility("default"))) int atb_model_abi() { return ::atb_core::kModelAbi; }           \
  extern "C" __attribute__((visibility("default"))) const void* atb_models() { return &::atb_core::LocalModels(); } \
  static_assert(true)
