// SPDX-License-Identifier: Apache-2.0
// Models whose graph C++ builds, for Python: atb_core/models/cpp/ checks tensors and keeps them alive.
#include "bindings/models.h"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>

#include "atb_core/error.h"
#include "models/cpu_model_engine.h"
#include "models/model_factory.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace atb_core {
namespace {

// (address, dtype, shape); address 0 for what is not there.
using TensorTuple = std::tuple<uintptr_t, std::string, std::vector<int64_t>>;

std::vector<TensorView> views(const std::vector<TensorTuple>& tensors) {
  std::vector<TensorView> result;
  for (const auto& [address, dtype, shape] : tensors) {
    if (shape.size() > static_cast<size_t>(kMaxRank)) fail("a tensor has more than ", kMaxRank, " dimensions");
    TensorView& view = result.emplace_back();
    view.data = reinterpret_cast<void*>(address);
    view.dtype = data_type_from_name(dtype);
    view.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), view.shape);
  }
  return result;
}

// Models are foreign code: whatever a model throws becomes an Error that names it.
template <typename Function>
auto guarded(const std::string& name, Function&& work) {
  try {
    return work();
  } catch (const Error&) {
    if (PyErr_Occurred()) throw nb::python_error();
    throw;
  } catch (const std::exception& error) {
    fail(name, ": ", error.what());
  }
}

// A model and the engine it runs on.
class PythonModel {
 public:
  PythonModel(const std::string& name, const std::string& param, std::shared_ptr<Runtime> runtime,
              std::shared_ptr<WeightStore> store)
      : name_(name), model_(guarded(name, [&] { return ModelFactory::instance().create(name, param); })) {
    auto engine = std::make_unique<CpuModelEngine>(std::move(runtime), std::move(store));
    engine_ = engine.get();
    // Ctrl-C arrives as a flag that only Python code looks at: ask for it now and then.
    engine_->interrupted = [] {
      const nb::gil_scoped_acquire acquire;
      return PyErr_CheckSignals() != 0;
    };
    guarded(name, [&] { model_->Init(std::move(engine)); });
  }

  std::vector<std::string> input_names() const { return engine_->input_names(); }
  std::vector<std::string> weight_names() const { return names(Role::weight); }
  size_t num_layers() const { return names(Role::cache).size() / 2; }

  void set_weights(const std::vector<TensorTuple>& weights) {
    const std::vector<TensorView> given = views(weights);
    const nb::gil_scoped_release release;
    model_->engine().set_weights(given);
  }
  void declare_weights(const std::vector<std::string>& names, const std::vector<TensorTuple>& weights) {
    const std::vector<TensorView> given = views(weights);
    const nb::gil_scoped_release release;
    engine_->declare_weights(names, given);
  }
  void share_weights(const PythonModel& other) { engine_->share_weights(*other.engine_); }
  void set_caches(const std::vector<TensorTuple>& keys, const std::vector<TensorTuple>& values) {
    model_->engine().set_caches(views(keys), views(values));
  }
  std::vector<std::tuple<std::string, std::vector<int64_t>>> outputs(const std::vector<TensorTuple>& inputs) {
    const std::vector<std::vector<int64_t>> shapes = engine_->output_shapes(views(inputs));
    std::vector<std::tuple<std::string, std::vector<int64_t>>> result;
    for (const ModelGraph::Tensor& tensor : model_->graph().tensors()) {
      if (tensor.role == Role::output) result.emplace_back(atb_core::name(tensor.dtype), shapes[result.size()]);
    }
    return result;
  }
  void execute(const std::vector<TensorTuple>& inputs, const std::vector<TensorTuple>& outputs,
               const std::string& param) {
    const std::vector<TensorView> given = views(inputs), results = views(outputs);
    guarded(name_, [&] {
      const nb::gil_scoped_release release;
      model_->Execute(given, results, param);
    });
  }
  // (op, label) of every node, for looking at.
  std::vector<std::tuple<std::string, std::string>> nodes() const {
    std::vector<std::tuple<std::string, std::string>> result;
    for (const ModelGraph::Node& node : model_->graph().nodes()) result.emplace_back(node.op, node.label);
    return result;
  }

 private:
  std::vector<std::string> names(Role role) const {
    std::vector<std::string> result;
    for (const ModelGraph::Tensor& tensor : model_->graph().tensors()) {
      if (tensor.role == role) result.push_back(tensor.name);
    }
    return result;
  }

  std::string name_;
  std::shared_ptr<Model> model_;
  CpuModelEngine* engine_;
};

}  // namespace

void bind_models(nb::module_& m) {
  m.def("model_names", [] { return ModelFactory::instance().names(); }, "Models that C++ builds, by name.");
  m.def(
      "load_models", [](const std::string& path) { return ModelFactory::instance().load_library(path); }, "path"_a,
      "Loads a shared library with models and returns their names.");
  nb::class_<PythonModel>(m, "Model", "A model whose graph C++ builds, on the CPU engine.")
      .def(nb::init<const std::string&, const std::string&, std::shared_ptr<Runtime>, std::shared_ptr<WeightStore>>(),
           "name"_a, "param"_a, "runtime"_a, "store"_a)
      .def_prop_ro("input_names", &PythonModel::input_names)
      .def_prop_ro("weight_names", &PythonModel::weight_names)
      .def_prop_ro("num_layers", &PythonModel::num_layers)
      .def("nodes", &PythonModel::nodes, "(op, label) of every node.")
      .def("set_weights", &PythonModel::set_weights, "weights"_a, "Copies or packs (address, dtype, shape).")
      .def("declare_weights", &PythonModel::declare_weights, "names"_a, "weights"_a,
           "Announces weights by shape; their data comes into the store by name.")
      .def("share_weights", &PythonModel::share_weights, "other"_a)
      .def("set_caches", &PythonModel::set_caches, "keys"_a, "values"_a)
      .def("outputs", &PythonModel::outputs, "inputs"_a, "(dtype, shape) of what these inputs give.")
      .def("execute", &PythonModel::execute, "inputs"_a, "outputs"_a, "param"_a);
}

}  // namespace atb_core
