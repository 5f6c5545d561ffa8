// SPDX-License-Identifier: Apache-2.0
// The CPU engine for Python, atb_core._cpu. Tensors cross as addresses and shapes, so the extension does not depend on
// torch or its version; atb_core/engine/cpu.py checks types and keeps the tensors alive.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "atb_core/error.h"
#include "atb_core/fork_safe_mutex.h"
#include "bindings/arrays.h"
#include "bindings/convert.h"
#include "bindings/models.h"
#include "cpu/engine/custom_op.h"
#include "cpu/engine/graph_backend.h"
#include "cpu/engine/op.h"
#include "cpu/engine/packed_file.h"
#include "cpu/engine/program.h"
#include "cpu/engine/read_stream.h"
#include "cpu/engine/runtime.h"
#include "cpu/engine/weight_store.h"
#include "cpu/isa.h"
#include "cpu/thread_pool.h"
#include "graph/types.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using atb_core::ForkGate;
using atb_core::Program;
using atb_core::Runtime;
using atb_core::SlicedRun;
using atb_core::WeightStore;

std::shared_ptr<Runtime> make_runtime(int num_threads, const std::string& isa, double small_work) {
  const auto level = isa.empty() ? atb_core::cpu::detect() : atb_core::cpu::isa_from_name(isa);
  if (!level) atb_core::fail("'", isa, "' is not an instruction set level");
  return std::make_shared<Runtime>(atb_core::cpu::resolve_num_threads(num_threads), *level, small_work);
}

// Lets no thread of the engine run while Python forks, so that the child can go on with runtimes, stores and programs.
// A run that lasts longer than the patience makes them unusable in the child.
void guard_forks(nb::module_& m) {
  static constexpr auto kPatience = std::chrono::seconds(10);
  m.def("_before_fork", [] { ForkGate::instance().close(kPatience); }, nb::call_guard<nb::gil_scoped_release>());
  m.def("_after_fork_in_parent", [] { ForkGate::instance().open_in_parent(); });
  m.def("_after_fork_in_child", [] { ForkGate::instance().open_in_child(); });
  nb::module_::import_("os").attr("register_at_fork")("before"_a = m.attr("_before_fork"),
                                                      "after_in_parent"_a = m.attr("_after_fork_in_parent"),
                                                      "after_in_child"_a = m.attr("_after_fork_in_child"));
}

void* pointer(uintptr_t address) { return reinterpret_cast<void*>(address); }

void set_weight(WeightStore& store, const std::string& name, uintptr_t data, const std::string& dtype,
                const std::vector<int64_t>& shape) {
  const nb::gil_scoped_release release;
  store.set(name, pointer(data), atb_core::data_type_from_name(dtype), shape);
}

void set_weight_part(WeightStore& store, const std::string& name, int64_t begin, uintptr_t data,
                     const std::string& dtype, const std::vector<int64_t>& shape, int64_t whole) {
  const nb::gil_scoped_release release;
  store.set_part(name, begin, pointer(data), atb_core::data_type_from_name(dtype), shape, whole);
}

atb_core::cpu::QuantFormat format_of(const std::string& text) {
  const std::optional<atb_core::cpu::QuantFormat> format = atb_core::cpu::quant_format_from_name(text);
  if (!format) atb_core::fail("'", text, "' is no format of quantised weights");
  return *format;
}

void quantize_weight(WeightStore& store, const std::string& name, const std::string& format, uintptr_t data,
                     const std::string& dtype, const std::vector<int64_t>& shape) {
  const nb::gil_scoped_release release;
  store.quantize(name, format_of(format), pointer(data), atb_core::data_type_from_name(dtype), shape);
}

bool set_weight_blocks(WeightStore& store, const std::string& name, int64_t begin, const std::string& format,
                       int64_t place, size_t bytes, int64_t rows, int64_t k, const std::string& dtype, int64_t whole,
                       int descriptor) {
  const nb::gil_scoped_release release;
  WeightStore::Blocks blocks{.format = format_of(format), .bytes = bytes, .data = nullptr, .descriptor = descriptor};
  if (descriptor < 0) blocks.data = static_cast<const std::byte*>(pointer(static_cast<uintptr_t>(place)));
  if (descriptor >= 0) blocks.offset = place;
  return store.set_blocks(name, begin, blocks, rows, k, atb_core::data_type_from_name(dtype), whole);
}

void register_kernel(const std::string& op, uint32_t abi_version, uintptr_t run, uintptr_t check,
                     const std::vector<int>& writes) {
  const auto function = [](uintptr_t address) { return reinterpret_cast<atb_kernel_function>(address); };
  atb_core::register_kernel({op, abi_version, function(check), function(run), writes});
}

// Returns true if Ctrl-C was pressed: the signal sets a flag that Python code has to poll.
bool signal_pending() {
  const nb::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

void save_weights(const WeightStore& store, int descriptor, const std::string& key) {
  bool finished = false;
  {
    const nb::gil_scoped_release release;
    finished = store.save(descriptor, key, signal_pending);
  }
  if (!finished) throw nb::python_error();
}

void run_with(Program& program, const std::vector<atb_core::Argument>& given) {
  bool finished = false;
  {
    const nb::gil_scoped_release release;
    finished = program.run(given, signal_pending);
  }
  if (!finished) throw nb::python_error();
}

void run(Program& program, const std::vector<int>& tensors, const std::vector<uintptr_t>& data, nb::sequence shapes) {
  run_with(program, atb_core::arguments_from(tensors, data, shapes));
}

bool run_arrays(Program& program, nb::list input_slots, nb::dict inputs, nb::list output_slots, nb::dict outputs) {
  std::vector<atb_core::Argument> given;
  given.reserve(nb::len(inputs) + nb::len(outputs));
  const bool fit =
      atb_core::append_arrays(given, input_slots, inputs) && atb_core::append_arrays(given, output_slots, outputs);
  if (fit) run_with(program, given);
  return fit;
}

// Returns true once the run has ended.
bool advance(SlicedRun& run, double seconds) {
  // What is more than an hour is no limit.
  constexpr double kMost = 3600;
  const auto nanoseconds = seconds < kMost ? static_cast<int64_t>(1e9 * std::max(0.0, seconds)) : INT64_MAX;
  SlicedRun::Status status;
  {
    const nb::gil_scoped_release release;
    status = run.advance(nanoseconds, signal_pending);
  }
  if (status == SlicedRun::Status::interrupted) throw nb::python_error();
  return status == SlicedRun::Status::done;
}

// Calls a method that may wait for a run on another thread. That run may need the GIL to end: it polls for signals, and
// a kernel may be written in Python.
template <typename Fn>
auto without_gil(Fn&& fn) {
  const nb::gil_scoped_release release;
  return fn();
}

std::vector<std::vector<int64_t>> output_shapes(Program& program, const std::vector<int>& tensors,
                                                const std::vector<uintptr_t>& data, nb::sequence shapes) {
  const std::vector<atb_core::Argument> given = atb_core::arguments_from(tensors, data, shapes);
  return without_gil([&] { return program.output_shapes(given); });
}

std::unique_ptr<SlicedRun> start(Program& program, const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
                                 nb::sequence shapes) {
  const std::vector<atb_core::Argument> given = atb_core::arguments_from(tensors, data, shapes);
  return without_gil([&] { return program.start(given); });
}

void set(Program& program, const std::vector<int>& tensors, const std::vector<uintptr_t>& data, nb::sequence shapes) {
  const std::vector<atb_core::Argument> given = atb_core::arguments_from(tensors, data, shapes);
  without_gil([&] { program.set(given); });
}

nb::list take_runs(Program& program) {
  return atb_core::rows_from(without_gil([&] { return program.take_runs(); }));
}

nb::dict plan_info(Program& program) {
  const Program::PlanInfo info = without_gil([&] { return program.plan_info(); });
  nb::dict result;
  result["steps"] = info.steps;
  result["arena_bytes"] = info.arena_bytes;
  result["shared_bytes"] = info.shared_bytes;
  result["scratch_bytes"] = info.scratch_bytes;
  return result;
}

nb::dict weight_info(const WeightStore& store, const std::string& name) {
  const WeightStore::Info info = without_gil([&] { return store.info(name); });
  nb::dict result;
  result["dtype"] = std::string(atb_core::name(info.dtype));
  result["shape"] = nb::tuple(nb::cast(info.shape));
  result["packed"] = info.packed;
  result["bytes"] = info.bytes;
  nb::list formats;
  for (atb_core::cpu::QuantFormat format : info.formats) formats.append(std::string(atb_core::cpu::name(format)));
  result["formats"] = formats;
  return result;
}

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (atb_core::cpu::Isa isa : atb_core::cpu::supported_isas()) names.emplace_back(name(isa));
  return names;
}

}  // namespace

NB_MODULE(_cpu, m) {
  m.doc() = "The C++ engine: programs over addresses and shapes.";
  atb_core::raise_engine_errors();
  guard_forks(m);

  m.def(
      "detect_isa", [] { return std::string(name(atb_core::cpu::detect())); },
      "The instruction set level that ATB_CPU_ISA names, else the best this machine has.");
  m.def("supported_isas", &isa_names, "Levels that this machine can run, ascending; the emulation of AMX is last.");
  m.def("op_names", &atb_core::cpu_op_names, "The ops that programs may use.");
  m.def("resolve_num_threads", &atb_core::cpu::resolve_num_threads, "requested"_a = 0,
        "The number of threads: the argument if positive, else ATB_NUM_THREADS, OMP_NUM_THREADS, the processors.");

  m.def("read_stream", &atb_core::read_stream, "runtime"_a, "bytes"_a, "repeats"_a,
        nb::call_guard<nb::gil_scoped_release>(), "Seconds of each pass of the threads over so much memory.");

  m.attr("KERNEL_ABI_VERSION") = ATB_KERNEL_ABI_VERSION;
  m.def("register_kernel", &register_kernel, "op"_a, "abi_version"_a, "run"_a, "check"_a = 0,
        "writes"_a = std::vector<int>(),
        "Adds an op for the rest of the process: addresses of functions of atb_core/kernel_abi.h, inputs that are "
        "written.");

  nb::class_<Runtime>(m, "Runtime", "Threads, instruction set level and working memory, shared by programs.")
      .def(nb::new_(&make_runtime), "num_threads"_a = 0, "isa"_a = "", "small_work"_a = Runtime::kSmallWork)
      .def_prop_ro("num_threads", &Runtime::num_threads)
      .def_prop_ro("isa", [](const Runtime& runtime) { return std::string(name(runtime.isa())); })
      .def_prop_ro("packed_layout",
                   [](const Runtime& runtime) { return std::string(atb_core::packed_layout(runtime.isa())); })
      .def_prop_ro("prefetch_ahead", &Runtime::prefetch_ahead,
                   "Bytes between weights that are read and those that are fetched, as chosen so far in this process.")
      .def_prop_ro("workspace_bytes", &Runtime::workspace_bytes);

  nb::class_<WeightStore>(m, "WeightStore", "One resident copy of each weight, in the layout its users want.")
      .def(nb::init<std::shared_ptr<Runtime>>(), "runtime"_a)
      .def("set", &set_weight, "name"_a, "data"_a, "dtype"_a, "shape"_a,
           "Copies or packs contiguous memory at the address `data`.")
      .def("set_part", &set_weight_part, "name"_a, "begin"_a, "data"_a, "dtype"_a, "shape"_a, "whole"_a,
           "Copies or packs the part from `begin` on of a first dimension of `whole`.")
      .def("quantize", &quantize_weight, "name"_a, "format"_a, "data"_a, "dtype"_a, "shape"_a,
           "Packs contiguous floats in the format int8 or int4.")
      .def(
          "set_blocks", &set_weight_blocks, "name"_a, "begin"_a, "format"_a, "place"_a, "bytes"_a, "rows"_a, "k"_a,
          "dtype"_a, "whole"_a, "descriptor"_a = -1,
          "Packs rows of blocks, from the row `begin` on of a matrix of `whole` rows. `place` is an address or, with a "
          "descriptor, an offset in that file; false if it cannot be read.")
      .def("save", &save_weights, "descriptor"_a, "key"_a, "Writes all weights, as they are packed, to an empty file.")
      .def("load", &WeightStore::load, "descriptor"_a, "bytes"_a, "key"_a, nb::call_guard<nb::gil_scoped_release>(),
           "Maps a file that save() wrote; false if it has another key or version.")
      .def("contains", &WeightStore::contains, "name"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("names", &WeightStore::names, nb::call_guard<nb::gil_scoped_release>())
      .def("info", &weight_info, "name"_a, "dtype, shape, packed, bytes, formats of a weight.")
      .def_prop_ro("bytes", &WeightStore::bytes, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("mapped_bytes", &WeightStore::mapped_bytes, nb::call_guard<nb::gil_scoped_release>());

  nb::class_<SlicedRun>(m, "SlicedRun", "A run in slices of time, between which other programs may run.")
      .def("advance", &advance, "seconds"_a,
           "Goes on for about so long, for one node at least, without the GIL; true once the run has ended.");

  nb::class_<Program>(m, "Program", "A graph that runs.")
      .def(
          "__init__",
          [](Program* self, std::shared_ptr<Runtime> runtime, std::shared_ptr<WeightStore> store,
             const std::vector<std::string>& dims, nb::sequence tensors, nb::sequence nodes) {
            atb_core::GraphSpec spec = atb_core::graph_from_python(dims, tensors, nodes);
            // Declaring weights may repack some of them.
            const nb::gil_scoped_release release;
            new (self) Program(std::move(runtime), std::move(store), std::move(spec));
          },
          "runtime"_a, "store"_a, "dims"_a, "tensors"_a, "nodes"_a,
          "dims: names. tensors: (name, dtype, kind, shape), kind one of input, weight, output, internal; a size is a "
          "list of (operation, value) in postfix order. nodes: (op, label, attributes, inputs, outputs).")
      .def("external", &Program::external, "name"_a, "The number of an input or output.")
      .def("set", &set, "tensors"_a, "data"_a, "shapes"_a, "Gives inputs or outputs their memory until given again.")
      .def("output_shapes", &output_shapes, "tensors"_a, "data"_a, "shapes"_a,
           "As set(), then the shapes that the outputs must have.")
      .def("run", &run, "tensors"_a, "data"_a, "shapes"_a, "As set(), then runs the graph without the GIL.")
      .def("run_arrays", &run_arrays, "input_slots"_a, "inputs"_a, "output_slots"_a, "outputs"_a,
           "As run() with arrays of numpy, if all fit their slots; false, and nothing is done, if not.")
      .def("start", &start, "tensors"_a, "data"_a, "shapes"_a, nb::keep_alive<0, 1>(),
           "As set(), then begins a run in slices; the memory of inputs and outputs stays as it is until its end.")
      .def("set_recording", &Program::set_recording, "on"_a, nb::call_guard<nb::gil_scoped_release>())
      .def("take_runs", &take_runs,
           "(begin, end, nodes, times) of each run since the last call: int32 and pairs of int64 as bytes.")
      .def("plan_info", &plan_info, "steps, arena_bytes, shared_bytes, scratch_bytes for the present shapes.")
      .def_prop_ro("num_plans",
                   [](const Program& program) { return without_gil([&] { return program.num_plans(); }); });

  atb_core::bind_models<atb_core::CpuGraphBackend, WeightStore>(m);
}
