// SPDX-License-Identifier: Apache-2.0
#include "bindings/arrays.h"

namespace nb = nanobind;

namespace atb_core {
namespace {

// The first members of numpy's PyArrayObject, which are the same in all versions of its binary interface.
struct ArrayObject {
  PyObject_HEAD void* data;
  int rank;
  Py_ssize_t* shape;
  Py_ssize_t* strides;
  PyObject* base;
  PyObject* dtype;
  int flags;
};

constexpr int kContiguous = 0x1, kAligned = 0x100, kWritable = 0x400;
constexpr int kFits = kContiguous | kAligned | kWritable;

const PyTypeObject* array_type() {
  static const nb::handle type = nb::object(nb::module_::import_("numpy").attr("ndarray")).release();
  return reinterpret_cast<const PyTypeObject*>(type.ptr());
}

}  // namespace

bool append_arrays(std::vector<Argument>& arguments, nb::list slots, nb::dict values) {
  if (nb::len(slots) != nb::len(values)) return false;
  for (nb::handle slot : slots) {
    PyObject* const value = PyDict_GetItem(values.ptr(), PyTuple_GetItem(slot.ptr(), 0));
    if (value == nullptr || Py_TYPE(value) != array_type()) return false;
    const auto& array = *reinterpret_cast<const ArrayObject*>(value);
    if (array.dtype != PyTuple_GetItem(slot.ptr(), 2) || (array.flags & kFits) != kFits) return false;
    const int number = static_cast<int>(PyLong_AsLong(PyTuple_GetItem(slot.ptr(), 1)));
    arguments.push_back({number, array.data, {array.shape, array.shape + array.rank}});
  }
  return true;
}

}  // namespace atb_core
