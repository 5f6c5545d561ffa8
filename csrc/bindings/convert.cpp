// SPDX-License-Identifier: Apache-2.0
#include "bindings/convert.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <string_view>
#include <typeinfo>

#include "atb_core/error.h"
#include "graph/types.h"

namespace nb = nanobind;

namespace atb_core {
namespace {

TensorKind kind_from(const std::string& text) {
  static const std::map<std::string_view, TensorKind> kKinds = {{"input", TensorKind::input},
                                                                {"weight", TensorKind::weight},
                                                                {"output", TensorKind::output},
                                                                {"internal", TensorKind::internal}};
  const auto found = kKinds.find(text);
  if (found == kKinds.end()) fail("unknown kind of tensor '", text, "'");
  return found->second;
}

DimExpr size_from(const std::vector<std::pair<std::string, int64_t>>& steps, int num_dims) {
  using Op = DimExpr::Op;
  static const std::map<std::string_view, Op> kOps = {
      {"const", Op::constant}, {"dim", Op::dim}, {"add", Op::add}, {"mul", Op::mul}, {"floordiv", Op::floor_div}};
  std::vector<DimExpr::Step> result;
  for (const auto& [op, value] : steps) {
    const auto found = kOps.find(op);
    if (found == kOps.end()) fail("unknown operation '", op, "' in a size");
    result.push_back({found->second, value});
  }
  return DimExpr(std::move(result), num_dims);
}

// Returns an integer of Python, which may be larger than those of C++.
int64_t integer_from(const std::string& what, nb::handle value) {
  int64_t result = 0;
  if (!nb::try_cast(value, result)) fail(what, " is no integer of 64 bits");
  return result;
}

TensorSpec tensor_from(nb::handle item, int num_dims) {
  const auto fields = nb::cast<nb::tuple>(item);
  if (fields.size() != 4) fail("a tensor must be (name, dtype, kind, shape)");
  TensorSpec tensor{nb::cast<std::string>(fields[0]),
                    data_type_from_name(nb::cast<std::string>(fields[1])),
                    kind_from(nb::cast<std::string>(fields[2])),
                    {}};
  for (nb::handle size : nb::cast<nb::sequence>(fields[3])) {
    if (nb::isinstance<nb::int_>(size)) {
      tensor.shape.emplace_back(integer_from("a size of '" + tensor.name + "'", size));
    } else {
      tensor.shape.push_back(size_from(nb::cast<std::vector<std::pair<std::string, int64_t>>>(size), num_dims));
    }
  }
  return tensor;
}

Attribute attribute_from(const std::string& name, nb::handle value) {
  // Tests bool first: it is also an int.
  if (nb::isinstance<nb::bool_>(value)) return nb::cast<bool>(value);
  if (nb::isinstance<nb::int_>(value)) return integer_from("attribute '" + name + "'", value);
  if (nb::isinstance<nb::float_>(value)) return nb::cast<double>(value);
  if (nb::isinstance<nb::str>(value)) return nb::cast<std::string>(value);
  std::vector<int64_t> list;
  if (!nb::isinstance<nb::sequence>(value) || !nb::try_cast(value, list)) {
    fail("attribute '", name, "' is neither bool, int, float, str nor a list of ints");
  }
  return list;
}

NodeSpec node_from(nb::handle item) {
  const auto fields = nb::cast<nb::tuple>(item);
  if (fields.size() != 5) fail("a node must be (op, label, attributes, inputs, outputs)");
  NodeSpec node{nb::cast<std::string>(fields[0]),
                nb::cast<std::string>(fields[1]),
                {},
                nb::cast<std::vector<int>>(fields[3]),
                nb::cast<std::vector<int>>(fields[4])};
  for (const auto& [key, value] : nb::cast<nb::dict>(fields[2])) {
    const auto name = nb::cast<std::string>(key);
    try {
      node.attributes.emplace(name, attribute_from(name, value));
    } catch (const Error& error) {
      fail(describe(node), ": ", error.what());
    }
  }
  return node;
}

}  // namespace

GraphSpec graph_from_python(const std::vector<std::string>& dims, nb::sequence tensors, nb::sequence nodes) {
  GraphSpec spec;
  spec.dims = dims;
  try {
    for (nb::handle item : tensors) spec.tensors.push_back(tensor_from(item, static_cast<int>(dims.size())));
    for (nb::handle item : nodes) spec.nodes.push_back(node_from(item));
  } catch (const std::bad_cast&) {
    const bool nodes_began = spec.tensors.size() == nb::len(tensors);
    fail(nodes_began ? "node " : "tensor ", nodes_began ? spec.nodes.size() : spec.tensors.size(),
         " of the graph has a name that is no text in UTF-8, or a size that is no integer of 64 bits");
  }
  return spec;
}

std::vector<Argument> arguments_from(const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
                                     nb::sequence shapes) {
  if (tensors.size() != data.size() || tensors.size() != nb::len(shapes)) {
    fail("tensors, data and shapes differ in length");
  }
  std::vector<Argument> result;
  result.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    result.push_back({tensors[i], reinterpret_cast<void*>(data[i]), nb::cast<std::vector<int64_t>>(shapes[i])});
  }
  return result;
}

nb::object text_from(const std::string& text) {
  const auto length = static_cast<Py_ssize_t>(text.size());
  return nb::steal(PyUnicode_DecodeUTF8(text.c_str(), length, "backslashreplace"));
}

nb::list texts_from(const std::vector<std::string>& texts) {
  nb::list result;
  for (const std::string& text : texts) result.append(text_from(text));
  return result;
}

nb::list rows_from(const std::vector<RunTimes>& runs) {
  const auto bytes = [](const auto& values) { return nb::bytes(values.data(), values.size() * sizeof(values[0])); };
  nb::list rows;
  for (const RunTimes& run : runs) {
    rows.append(nb::make_tuple(run.begin, run.end, bytes(run.nodes), bytes(run.times)));
  }
  return rows;
}

void raise_engine_errors() {
  // Never released: an error may come at any time until the process ends.
  PyObject* type = nb::object(nb::module_::import_("atb_core.errors").attr("EngineError")).release().ptr();
  // Runs before nanobind's own translator, which would raise UnicodeDecodeError for a message that is not UTF-8.
  nb::register_exception_translator(
      [](const std::exception_ptr& thrown, void* type) {
        try {
          std::rethrow_exception(thrown);
        } catch (const Error& error) {
          PyErr_SetObject(static_cast<PyObject*>(type), text_from(error.what()).ptr());
        } catch (const std::bad_alloc&) {
          PyErr_SetString(static_cast<PyObject*>(type), "the system refuses the memory that the engine needs");
        }
      },
      type);
}

}  // namespace atb_core
