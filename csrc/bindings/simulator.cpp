// SPDX-License-Identifier: Apache-2.0
// Controls of the simulator for Python: faults, counters and settings, for tests and inspection.
#include "bindings/simulator.h"

#include <acl/acl.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sim/control.h>
#include <sim/opapi.h>

#include "atb/aclnn_library.h"
#include "atb_core/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace atb_core {
namespace {

nb::dict counters() {
  const atb::sim::Counters now = atb::sim::counters();
  nb::dict result;
  result["live_bytes"] = now.live_bytes;
  result["peak_bytes"] = now.peak_bytes;
  result["live_allocations"] = now.live_allocations;
  result["allocations"] = now.allocations;
  result["launches"] = now.launches;
  result["setups"] = now.setups;
  result["executes"] = now.executes;
  result["creates"] = now.creates;
  result["live_operations"] = now.live_operations;
  result["live_contexts"] = now.live_contexts;
  result["live_streams"] = now.live_streams;
  result["live_events"] = now.live_events;
  result["live_aclnn"] = now.live_aclnn;
  result["copies_h2d"] = now.copies_h2d;
  result["bytes_h2d"] = now.bytes_h2d;
  result["copies_d2h"] = now.copies_d2h;
  result["bytes_d2h"] = now.bytes_d2h;
  result["copies_d2d"] = now.copies_d2d;
  result["bytes_d2d"] = now.bytes_d2d;
  return result;
}

// Returns device memory as an array that the host can read; it keeps `owner` alive.
nb::object window(uintptr_t address, size_t bytes, nb::object owner) {
  void* data = atb::sim::window(reinterpret_cast<const void*>(address));
  const size_t shape[] = {bytes};
  return nb::cast(nb::ndarray<nb::numpy, uint8_t>(data, 1, shape, owner));
}

uintptr_t device_address(uintptr_t window_address) {
  return reinterpret_cast<uintptr_t>(atb::sim::device_address(reinterpret_cast<const void*>(window_address)));
}

// Creates a stream that no Device owns, as torch_npu does.
uintptr_t create_stream() {
  aclInit(nullptr);
  aclrtStream stream = nullptr;
  if (aclrtSetDevice(0) != ACL_SUCCESS || aclrtCreateStream(&stream) != ACL_SUCCESS) fail("there is no stream");
  return reinterpret_cast<uintptr_t>(stream);
}

void destroy_stream(uintptr_t stream) { aclrtDestroyStream(reinterpret_cast<aclrtStream>(stream)); }

}  // namespace

void bind_simulator(nb::module_& m) {
  ascend::find_aclnn_with(&atb::sim::opapi_symbol);
  nb::module_ sim = m.def_submodule("sim", "Controls of the simulator.");
  sim.def("counters", &counters, "Accounts of memory, launches and copies since the process began.");
  sim.def("reset_peak", &atb::sim::reset_peak, "peak_bytes starts again from what is live.");
  sim.def("set_logging", &atb::sim::set_logging, "on"_a, "Starts a new log of calls, or stops it.");
  sim.def("call_log", &atb::sim::call_log, "The calls since logging was switched on.");
  sim.def("inject", &atb::sim::inject, "call"_a, "n"_a, "status"_a,
          "The n-th next call of `call` (of any if empty) returns `status` instead of doing its work.");
  sim.def("inject_async", &atb::sim::inject_async, "n"_a, "status"_a, "The n-th next kernel fails on its stream.");
  sim.def("clear_faults", &atb::sim::clear_faults);
  sim.def("fault_pending", &atb::sim::fault_pending);
  sim.def("calls", &atb::sim::calls, "Calls so far in which a fault could be injected.");
  sim.def("set_soc", &atb::sim::set_soc, "name"_a, "The chip of devices that are opened from now on.");
  sim.def("set_version", &atb::sim::set_version, "version"_a);
  sim.def("set_memory", &atb::sim::set_memory, "bytes"_a);
  sim.def("set_devices", &atb::sim::set_devices, "count"_a, "How many devices there are, 1 to 16, with one memory.");
  sim.def("last_message", &atb::sim::last_message, "Why the simulator refused something last.");
  sim.def("window", &window, "address"_a, "bytes"_a, "owner"_a, "Device memory as an array that can be looked at.");
  sim.def("device_address", &device_address, "window_address"_a);
  sim.def("create_stream", &create_stream, "The address of a stream that no device object owns.");
  sim.def("destroy_stream", &destroy_stream, "stream"_a);
}

}  // namespace atb_core
