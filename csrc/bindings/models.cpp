// SPDX-License-Identifier: Apache-2.0
// Models whose graph C++ builds, for Python: atb-cpp-models checks tensors and keeps them alive.
#include "bindings/models.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "atb_core/error.h"
#include "bindings/convert.h"
#include "graph/types.h"
#include "models/lower.h"
#include "models/model_factory.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace atb_core {
namespace {

std::vector<TensorView> views(const std::vector<TensorTuple>& tensors) {
  std::vector<TensorView> result;
  for (const auto& [address, dtype, shape, on_device, host] : tensors) {
    if (shape.size() > static_cast<size_t>(kMaxRank)) fail("a tensor has more than ", kMaxRank, " dimensions");
    TensorView& view = result.emplace_back();
    view.data = reinterpret_cast<void*>(address);
    view.dtype = data_type_from_name(dtype);
    view.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), view.shape);
    view.on_device = on_device;
    view.host = reinterpret_cast<const void*>(host);
  }
  return result;
}

// Calls a function without the GIL: a thread must not wait for another thread's step with the GIL held, because the
// step acquires it.
template <typename Function>
auto without_gil(Function&& work) {
  const nb::gil_scoped_release release;
  return work();
}

// Calls code of a model, which may throw anything: the exception becomes an Error that names the model.
template <typename Function>
auto guarded(const std::string& name, Function&& work) {
  try {
    return work();
  } catch (const Error&) {
    if (PyErr_Occurred()) throw nb::python_error();
    throw;
  } catch (const std::exception& error) {
    fail(name, ": ", error.what());
  } catch (...) {
    fail(name, " threw something that is no std::exception, so what is wrong is not known");
  }
}

}  // namespace

PythonModel::PythonModel(const std::string& name, const std::string& param, std::shared_ptr<GraphBackend> backend)
    : name_(name), model_(guarded(name, [&] { return ModelFactory::instance().create(name, param); })) {
  auto engine = std::make_unique<GraphModelEngine>(std::move(backend));
  engine_ = engine.get();
  // Ctrl-C sets a flag that Python code has to poll.
  engine_->interrupted = [] {
    const nb::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  };
  guarded(name, [&] {
    without_gil([&] { model_->Init(std::move(engine)); });
    check_graph(model_->graph());
  });
}

void PythonModel::set_weights(const std::vector<TensorTuple>& weights) {
  const std::vector<TensorView> given = views(weights);
  without_gil([&] { model_->engine().set_weights(given); });
}

void PythonModel::declare_weights(const std::vector<std::string>& names, const std::vector<TensorTuple>& weights) {
  const std::vector<TensorView> given = views(weights);
  without_gil([&] { engine_->declare_weights(names, given); });
}

void PythonModel::share_weights(const PythonModel& other) {
  without_gil([&] { engine_->share_weights(*other.engine_); });
}

void PythonModel::set_caches(const std::vector<TensorTuple>& keys, const std::vector<TensorTuple>& values) {
  const std::vector<TensorView> given_keys = views(keys), given_values = views(values);
  without_gil([&] { model_->engine().set_caches(given_keys, given_values); });
}

void PythonModel::set_constants(const std::vector<TensorTuple>& inputs) {
  const std::vector<TensorView> given = views(inputs);
  without_gil([&] { engine_->set_constants(given); });
}

std::vector<std::tuple<std::string, std::vector<int64_t>>> PythonModel::outputs(
    const std::vector<TensorTuple>& inputs) {
  const std::vector<TensorView> given = views(inputs);
  const std::vector<std::vector<int64_t>> shapes = without_gil([&] { return engine_->output_shapes(given); });
  std::vector<std::tuple<std::string, std::vector<int64_t>>> result;
  for (const ModelGraph::Tensor& tensor : model_->graph().tensors()) {
    if (tensor.role == Role::output) result.emplace_back(atb_core::name(tensor.dtype), shapes[result.size()]);
  }
  return result;
}

void PythonModel::execute(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
                          const std::string& param) {
  const std::vector<TensorView> given = views(inputs), results = views(outputs);
  guarded(name_, [&] { without_gil([&] { model_->Execute(given, results, param); }); });
}

nb::list PythonModel::nodes() const {
  nb::list result;
  for (const ModelGraph::Node& node : model_->graph().nodes()) {
    result.append(nb::make_tuple(text_from(node.op), text_from(node.label)));
  }
  return result;
}

std::vector<std::string> PythonModel::names(Role role) const {
  std::vector<std::string> result;
  for (const ModelGraph::Tensor& tensor : model_->graph().tensors()) {
    if (tensor.role == role) result.push_back(tensor.name);
  }
  return result;
}

nb::class_<PythonModel> bind_model_class(nb::module_& m) {
  m.def("model_names", [] { return texts_from(ModelFactory::instance().names()); }, "Models that C++ builds, by name.");
  m.def(
      "load_models",
      [](const std::string& path, const ModelFactory::Owners& taken) {
        return texts_from(guarded(path, [&] { return ModelFactory::instance().load_library(path, taken); }));
      },
      "path"_a, "taken"_a = ModelFactory::Owners(),
      "Loads a shared library with models and returns their names. taken: names it may not register, and who has "
      "them.");
  return nb::class_<PythonModel>(m, "Model", "A model whose graph C++ builds, on the engine of this module.")
      .def_prop_ro("input_names", [](const PythonModel& model) { return texts_from(model.input_names()); })
      .def_prop_ro("weight_names", [](const PythonModel& model) { return texts_from(model.weight_names()); })
      .def("nodes", &PythonModel::nodes, "(op, label) of every node.")
      .def("set_weights", &PythonModel::set_weights, "weights"_a,
           "Copies or packs (address, dtype, shape, on_device, host); a host address for what ATB reads there, or 0.")
      .def("declare_weights", &PythonModel::declare_weights, "names"_a, "weights"_a,
           "Announces weights by shape; their data comes into the store by name.")
      .def("share_weights", &PythonModel::share_weights, "other"_a)
      .def("set_caches", &PythonModel::set_caches, "keys"_a, "values"_a)
      .def("set_constants", &PythonModel::set_constants, "inputs"_a, "Keeps those that are there for later steps.")
      .def("outputs", &PythonModel::outputs, "inputs"_a, "(dtype, shape) of what these inputs give.")
      .def("execute", &PythonModel::execute, "inputs"_a, "outputs"_a, "param"_a);
}

}  // namespace atb_core
