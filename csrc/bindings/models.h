// SPDX-License-Identifier: Apache-2.0
// Python classes for models whose graph C++ builds, over the backend of each extension module.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "models/graph_model_engine.h"

namespace atb_core {

// (address, dtype, shape, on_device, host address); address 0 for a missing tensor.
using TensorTuple = std::tuple<uintptr_t, std::string, std::vector<int64_t>, bool, uintptr_t>;

// A model and the engine that runs it.
class PythonModel {
 public:
  PythonModel(const std::string& name, const std::string& param, std::shared_ptr<GraphBackend> backend);

  std::vector<std::string> input_names() const { return engine_->input_names(); }
  std::vector<std::string> weight_names() const { return names(Role::weight); }

  void set_weights(const std::vector<TensorTuple>& weights);
  void declare_weights(const std::vector<std::string>& names, const std::vector<TensorTuple>& weights);
  void share_weights(const PythonModel& other);
  void set_caches(const std::vector<TensorTuple>& keys, const std::vector<TensorTuple>& values);
  void set_constants(const std::vector<TensorTuple>& inputs);
  std::vector<std::tuple<std::string, std::vector<int64_t>>> outputs(const std::vector<TensorTuple>& inputs);
  void execute(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
               const std::string& param);
  // Returns (op, label) of every node, for inspection.
  nanobind::list nodes() const;

 private:
  std::vector<std::string> names(Role role) const;

  std::string name_;
  std::shared_ptr<Model> model_;
  GraphModelEngine* engine_;
};

// Adds the class Model, without a constructor, and the functions around it to an extension module.
nanobind::class_<PythonModel> bind_model_class(nanobind::module_& m);

// Adds the class Model with its constructor: models run on a Backend over the Store that Python passes.
template <typename Backend, typename Store>
void bind_models(nanobind::module_& m) {
  const auto construct = [](PythonModel* self, const std::string& name, const std::string& param,
                            std::shared_ptr<Store> store) {
    new (self) PythonModel(name, param, std::make_shared<Backend>(std::move(store)));
  };
  bind_model_class(m).def("__init__", construct, nanobind::arg("name"), nanobind::arg("param"), nanobind::arg("store"));
}

}  // namespace atb_core
