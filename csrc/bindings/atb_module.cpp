// SPDX-License-Identifier: Apache-2.0
// The Ascend backend for Python. Compiled as atb_core._atb against ATB, and as atb_sim._atb_sim (the distribution
// atb-sim) against the simulator, which adds its controls as the submodule `sim`. Tensors cross as addresses and shapes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "atb/device.h"
#include "atb/device_program.h"
#include "atb/graph_backend.h"
#include "atb/lowering.h"
#include "atb/weights.h"
#include "atb_core/error.h"
#include "bindings/convert.h"
#include "bindings/interface.h"
#include "bindings/models.h"
#include "bindings/simulator.h"
#include "graph/types.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace atb_core::ascend {
namespace {

using Released = nb::call_guard<nb::gil_scoped_release>;

std::shared_ptr<Device> make_device(int id, uintptr_t stream, bool execute_async, bool launch_blocking,
                                    bool auto_transpose) {
  return std::make_shared<Device>(
      Device::Options{id, reinterpret_cast<void*>(stream), execute_async, launch_blocking, auto_transpose});
}

const void* pointer(uintptr_t address) { return reinterpret_cast<const void*>(address); }

std::vector<Argument> arguments(const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
                                nb::sequence shapes, const std::vector<bool>& on_device,
                                const std::vector<uintptr_t>& host) {
  std::vector<Argument> given = arguments_from(tensors, data, shapes);
  if (on_device.size() != given.size() || host.size() != given.size()) fail("the arguments differ in length");
  for (size_t i = 0; i < given.size(); ++i) {
    given[i].on_device = on_device[i];
    given[i].host = pointer(host[i]);
  }
  return given;
}

// Calls a function without the GIL. A run holds the device's lease and acquires the GIL, so a thread must not wait for
// the lease while it holds the GIL.
template <typename Fn>
auto without_gil(Fn&& fn) {
  const nb::gil_scoped_release release;
  return fn();
}

// Returns true if Ctrl-C was pressed: the signal sets a flag that Python code has to poll.
bool signal_pending() {
  const nb::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

void run(DeviceProgram& program, const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
         nb::sequence shapes, const std::vector<bool>& on_device, const std::vector<uintptr_t>& host) {
  const std::vector<Argument> given = arguments(tensors, data, shapes, on_device, host);
  bool finished = false;
  {
    const nb::gil_scoped_release release;
    finished = program.run(given, signal_pending);
  }
  if (!finished) throw nb::python_error();
}

template <void (DeviceProgram::*method)(const std::vector<Argument>&)>
void give(DeviceProgram& program, const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
          nb::sequence shapes, const std::vector<bool>& on_device, const std::vector<uintptr_t>& host) {
  const std::vector<Argument> given = arguments(tensors, data, shapes, on_device, host);
  without_gil([&] { (program.*method)(given); });
}

std::vector<std::vector<int64_t>> output_shapes(DeviceProgram& program, const std::vector<int>& tensors,
                                                const std::vector<uintptr_t>& data, nb::sequence shapes,
                                                const std::vector<bool>& on_device,
                                                const std::vector<uintptr_t>& host) {
  const std::vector<Argument> given = arguments(tensors, data, shapes, on_device, host);
  return without_gil([&] { return program.output_shapes(given); });
}

nb::dict plan_info(DeviceProgram& program) {
  const DeviceProgram::PlanInfo info = without_gil([&] { return program.plan_info(); });
  nb::dict result;
  result["segments"] = info.segments;
  result["operations"] = info.operations;
  result["arena_bytes"] = info.arena_bytes;
  result["workspace_bytes"] = info.workspace_bytes;
  return result;
}

nb::dict weight_info(const DeviceWeights& weights, const std::string& name) {
  const DeviceWeights::Info info = without_gil([&] { return weights.info(name); });
  nb::dict result;
  result["dtype"] = std::string(atb_core::name(info.dtype));
  result["shape"] = nb::tuple(nb::cast(info.shape));
  result["bytes"] = info.bytes;
  return result;
}

nb::list rules() {
  nb::list rows;
  for (const LoweringRule& rule : lowering_rules()) {
    nb::dict row;
    row["op"] = rule.op;
    row["becomes"] = rule.becomes;
    nb::list types;
    for (DataType type : rule.types) types.append(std::string(name(type)));
    row["types"] = types;
    row["limits"] = rule.limits;
    rows.append(row);
  }
  return rows;
}

nb::dict device_row(const DeviceInfo& info) {
  nb::dict row;
  row["soc"] = info.soc_prefix;
  row["name"] = info.name;
  row["bf16"] = info.bf16;
  row["nz"] = info.nz;
  row["transposes"] = info.transposes;
  row["max_head_size"] = info.max_head_dim;
  row["memory"] = info.memory;
  row["supported"] = info.supported;
  return row;
}

nb::list devices() {
  nb::list rows;
  for (const DeviceInfo& info : device_table()) rows.append(device_row(info));
  return rows;
}

// Memory of a device for tensors, owned by a Python object.
struct Memory {
  Memory(std::shared_ptr<Device> owner, size_t bytes) : device(std::move(owner)) {
    const auto lease = device->lease();
    memory = device->allocate(bytes, "a key/value cache");
  }
  ~Memory() {
    // A kernel may still use the memory; a destructor must not throw and must not wait for the lease with the GIL held.
    std::vector<DeviceMemory> given;
    given.push_back(std::move(memory));
    device->discard(std::move(given));
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::shared_ptr<Device> device;
  DeviceMemory memory;
};

nb::tuple memory_info(Device& device) {
  const Device::MemoryInfo info = without_gil([&] {
    const auto lease = device.lease();
    return device.memory();
  });
  return nb::make_tuple(info.free, info.total);
}

void bind_device(nb::module_& m) {
  nb::class_<Device>(m, "Device", nb::is_weak_referenceable(),
                     "A device with a stream: its own, or somebody else's by address.")
      .def(nb::new_(&make_device), "id"_a = 0, "stream"_a = 0, "execute_async"_a = false, "launch_blocking"_a = false,
           "auto_transpose"_a = true)
      .def("shut", &Device::shut, "Closes the device at the end of the process.", Released())
      .def_prop_ro("soc_name", &Device::soc_name)
      .def_prop_ro("info", [](const Device& device) { return device_row(device.info()); })
      .def(
          "block_problem",
          [](const Device& device, int64_t head, int64_t block, bool several) {
            return block_problem(device.info(), {head, head, block, several});
          },
          "head_dim"_a, "block_size"_a, "several"_a,
          "Why paged attention does not take such a cache, \"\" if it does; several new tokens of a sequence or one.")
      .def(
          "quant_problem",
          [](const Device& device, const std::string& dtype, int64_t n, int64_t k, int bits, int64_t group) {
            return quant_problem(device.info(), data_type_from_name(dtype), n, k, {bits, group});
          },
          "dtype"_a, "n"_a, "k"_a, "bits"_a, "group"_a,
          "Why the device does not multiply by such a matrix of integers, \"\" if it does.")
      .def_prop_ro("memory", &memory_info, "Bytes that are free, and all.");
  nb::class_<Memory>(m, "Memory", "Memory of the device; freed with this object.")
      .def(nb::init<std::shared_ptr<Device>, size_t>(), "device"_a, "bytes"_a, Released())
      .def_prop_ro("address", [](const Memory& memory) { return reinterpret_cast<uintptr_t>(memory.memory.data()); })
      .def_prop_ro("bytes", [](const Memory& memory) { return memory.memory.bytes(); });
}

void bind_weights(nb::module_& m) {
  nb::class_<DeviceWeights>(m, "WeightStore", "The weights of a model on a device.")
      .def(nb::init<std::shared_ptr<Device>>(), "device"_a)
      .def(
          "set",
          [](DeviceWeights& store, const std::string& name, uintptr_t data, const std::string& dtype,
             const std::vector<int64_t>& shape) { store.set(name, pointer(data), data_type_from_name(dtype), shape); },
          "name"_a, "data"_a, "dtype"_a, "shape"_a, "Copies contiguous memory of the host.", Released())
      .def(
          "set_part",
          [](DeviceWeights& store, const std::string& name, int64_t begin, uintptr_t data, const std::string& dtype,
             const std::vector<int64_t>& shape,
             int64_t whole) { store.set_part(name, begin, pointer(data), data_type_from_name(dtype), shape, whole); },
          "name"_a, "begin"_a, "data"_a, "dtype"_a, "shape"_a, "whole"_a, Released())
      .def(
          "set_quantized",
          [](DeviceWeights& store, const std::string& name, const std::string& dtype, const std::vector<int64_t>& shape,
             int bits, int64_t group, uintptr_t integers, uintptr_t scales, uintptr_t offsets) {
            store.set_quantized(name, data_type_from_name(dtype), shape, {bits, group, offsets != 0}, pointer(integers),
                                pointer(scales), pointer(offsets));
          },
          "name"_a, "dtype"_a, "shape"_a, "bits"_a, "group"_a, "integers"_a, "scales"_a, "offsets"_a,
          "Copies a matrix of integers; without offsets their address is 0.", Released())
      .def("contains", &DeviceWeights::contains, "name"_a, Released())
      .def("names", &DeviceWeights::names, Released())
      .def("info", &weight_info, "name"_a, "dtype, shape, bytes of a weight.")
      .def_prop_ro("bytes", &DeviceWeights::bytes, Released());
}

void bind_program(nb::module_& m) {
  nb::class_<DeviceProgram>(m, "Program", "A graph that runs on a device.")
      .def(nb::new_([](std::shared_ptr<DeviceWeights> store, const std::vector<std::string>& dims, nb::sequence tensors,
                       nb::sequence nodes, const std::vector<int>& segments) {
             GraphSpec spec = graph_from_python(dims, tensors, nodes);
             return without_gil(
                 [&] { return std::make_shared<DeviceProgram>(std::move(store), std::move(spec), segments); });
           }),
           "store"_a, "dims"_a, "tensors"_a, "nodes"_a, "segments"_a,
           "As _cpu.Program; `segments` has a number for each node.")
      .def("external", &DeviceProgram::external, "name"_a, "The number of an input or output.")
      .def("set", &give<&DeviceProgram::set>, "tensors"_a, "data"_a, "shapes"_a, "on_device"_a, "host"_a,
           "Gives inputs or outputs their memory until given again.")
      .def("set_constants", &give<&DeviceProgram::set_constants>, "tensors"_a, "data"_a, "shapes"_a, "on_device"_a,
           "host"_a, "Copies inputs that keep their values to the device.")
      .def("output_shapes", &output_shapes, "tensors"_a, "data"_a, "shapes"_a, "on_device"_a, "host"_a)
      .def("run", &run, "tensors"_a, "data"_a, "shapes"_a, "on_device"_a, "host"_a,
           "As set(), then runs the graph and waits for it.")
      .def("set_recording", &DeviceProgram::set_recording, "on"_a, Released())
      .def("take_runs",
           [](DeviceProgram& program) { return rows_from(without_gil([&] { return program.take_runs(); })); })
      .def("plan_info", &plan_info, "segments, operations, arena_bytes, workspace_bytes for the present shapes.")
      .def_prop_ro("num_plans", &DeviceProgram::num_plans);
}

}  // namespace
}  // namespace atb_core::ascend

NB_MODULE(ATB_MODULE_NAME, m) {
  using namespace atb_core::ascend;
  // At exit torch keeps arrays that it has taken over, so memory of caches is always reported as leaked.
  nb::set_leak_warnings(false);
  m.doc() = "The Ascend backend: programs over addresses and shapes.";
  m.attr("INTERFACE_VERSION") = atb_core::kInterfaceVersion;
  atb_core::raise_engine_errors();
  m.def("op_rules", &rules, "What each op becomes: op, becomes, types, limits.");
  m.def("devices", &devices, "The devices that the backend knows.");
  m.def("atb_version", [] { return ::atb::Utils::GetAtbVersion(); }, "The version of ATB.");
  bind_device(m);
  bind_weights(m);
  bind_program(m);
  atb_core::bind_models<DeviceGraphBackend, DeviceWeights>(m);
  atb_core::bind_simulator(m);
}
