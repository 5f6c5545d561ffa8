// SPDX-License-Identifier: Apache-2.0
#include "atb/device_program.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <numeric>
#include <set>

#include "atb/diagnose.h"
#include "atb/status.h"

namespace atb_core::ascend {
namespace {

// Returns a name that ATB accepts: letters, digits and underscores, at most 128.
std::string graph_name(const std::string& label) {
  std::string name;
  for (char c : label) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name.empty() ? "graph" : name.substr(0, 128);
}

std::vector<int64_t> constant_shape(const TensorSpec& tensor) {
  std::vector<int64_t> shape;
  for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate({}));
  return shape;
}

const char* described(Layout layout) {
  if (layout == Layout::nz) return "in FRACTAL_NZ";
  if (layout == Layout::ones) return "with ones where it hides";
  return "in rows";
}

// An error of ATB while it launches a segment's operation.
struct LaunchFailure {
  size_t segment;
  ::atb::Status status;
};

}  // namespace

DeviceProgram::DeviceProgram(std::shared_ptr<DeviceWeights> weights, GraphSpec spec, const std::vector<int>& segments)
    : weights_(std::move(weights)),
      device_(*weights_->device()),
      graph_(std::move(spec)),
      context_(segment_context(graph_, device_.info())),
      arguments_(graph_),
      numbers_(segments),
      sizes_(std::make_shared<std::vector<int64_t>>(graph_.dims().size())) {
  if (numbers_.size() != graph_.nodes().size()) {
    fail(numbers_.size(), " segment numbers were given for ", graph_.nodes().size(), " nodes");
  }
  make_segments();
  if (device_.options().execute_async) queue_ = std::make_unique<LaunchQueue>([this] { device_.choose(); });
}

DeviceProgram::~DeviceProgram() {
  queue_.reset();
  std::vector<DeviceMemory> memory;
  for (auto& [tensor, constant] : constants_) memory.push_back(std::move(constant.memory));
  device_.discard(std::move(memory));
}

// Does it again where weights have become integers since, for which there are other operations, and where recording
// began or ended.
void DeviceProgram::make_segments() {
  const std::lock_guard lock(making_);
  const uint64_t formats = weights_->formats_generation();
  const bool by_node = record_.on();
  if (formats == formats_ && by_node == by_node_) return;
  context_.formats = weights_->formats(graph_);
  std::vector<Segment> made;
  for (size_t begin = 0; begin < numbers_.size();) {
    size_t end = begin + 1;
    while (!by_node && end < numbers_.size() && numbers_[end] == numbers_[begin]) ++end;
    lower_segments(context_, begin, end, made);
    begin = end;
  }
  build_operations(made);
  declare_weights(made);
  const auto lease = device_.lease();
  segments_ = std::move(made);
  plans_.clear();
  packs_.clear();
  for (const Segment& segment : segments_) {
    packs_.push_back(std::make_unique<::atb::VariantPack>());
    packs_.back()->inTensors.resize(segment.inputs.size());
    packs_.back()->outTensors.resize(segment.outputs.size());
  }
  choose_layouts();
  formats_ = formats;
  by_node_ = by_node;
  generation_ = 0;
}

void DeviceProgram::build_operations(std::vector<Segment>& segments) {
  const auto lease = device_.lease();
  std::map<std::string, std::shared_ptr<const BuiltOperation>> known;
  for (Segment& segment : segments) {
    // Equal segments share one operation and use it one after another, except where a second thread launches: an
    // operation must not be prepared again while a launch of it waits.
    auto& operation = known[device_.options().execute_async ? std::to_string(known.size()) : segment.signature(graph_)];
    if (!operation) operation = build_operation(segment, graph_name(segment.label), sizes_, device_);
    segment.operation = operation;
  }
  operations_ = known.size();
}

void DeviceProgram::declare_weights(const std::vector<Segment>& segments) {
  for (const Segment& segment : segments) {
    for (const Segment::Operand& operand : segment.inputs) {
      const TensorSpec& tensor = graph_.tensor(operand.tensor);
      if (tensor.kind != TensorKind::weight || operand.format.bits > 0) continue;
      weights_->declare(tensor.name, tensor.dtype, constant_shape(tensor), operand.layout);
    }
  }
}

// An input is copied once, so it has one layout.
void DeviceProgram::choose_layouts() {
  layouts_.assign(graph_.tensors().size(), Layout::nd);
  std::set<int> chosen;
  for (const Segment& segment : segments_) {
    for (const Segment::Operand& operand : segment.inputs) {
      if (graph_.tensor(operand.tensor).kind != TensorKind::input) continue;
      Layout& layout = layouts_[static_cast<size_t>(operand.tensor)];
      if (chosen.insert(operand.tensor).second) layout = operand.layout;
      if (layout == operand.layout) continue;
      fail("input '", graph_.tensor(operand.tensor).name, "' is used ", described(layout), " and ",
           described(operand.layout));
    }
  }
  for (size_t i = 0; i < layouts_.size(); ++i) {
    const size_t root = static_cast<size_t>(context_.roots[i]);
    if (graph_.tensors()[i].kind != TensorKind::output || layouts_[root] != Layout::nz) continue;
    fail("output '", graph_.tensors()[i].name, "' is a view of '", graph_.tensors()[root].name,
         "', which lies in FRACTAL_NZ on this device");
  }
}

void DeviceProgram::set(const std::vector<Argument>& arguments) {
  const auto lease = device_.lease();
  bind(arguments);
}

// Tensors on the device are used in their layout. Caches (of four dimensions) are allocated in the layout that ATB
// requires; other tensors that it requires in blocks come from the host and are converted.
void DeviceProgram::bind(const std::vector<Argument>& arguments) {
  const auto layout = [&](const Argument& given) {
    const auto id = static_cast<size_t>(given.tensor);
    return id < layouts_.size() && given.on_device && given.shape.size() != 4 ? layouts_[id] : Layout::nd;
  };
  for (const Argument& argument : arguments) {
    if (layout(argument) != Layout::nz) continue;
    fail("input '", graph_.tensor(argument.tensor).name, "' lies on the device in rows, and ATB takes it in FRACTAL_NZ",
         " there: give it from the host");
  }
  arguments_.set(arguments);
  for (const Argument& argument : arguments) {
    if (layout(argument) == Layout::ones) {
      arguments_.set({in_ones(argument)});
    } else {
      constants_.erase(argument.tensor);
    }
  }
}

Argument DeviceProgram::in_ones(Argument given) {
  const DataType dtype = graph_.tensor(given.tensor).dtype;
  const size_t bytes = tensor_bytes(dtype, given.shape);
  std::vector<std::byte> values(bytes), ones;
  device_.download(values.data(), given.data, bytes);
  Constant& constant = constants_[given.tensor];
  if (constant.memory.bytes() < bytes) constant.memory = device_.allocate(bytes, "a mask");
  device_.upload(constant.memory.data(), arranged(values.data(), dtype, given.shape, Layout::ones, ones), bytes);
  given.data = constant.memory.data();
  return given;
}

void DeviceProgram::set_constants(const std::vector<Argument>& arguments) {
  const auto lease = device_.lease();
  Arguments(graph_).set(arguments);  // throws before anything is changed
  std::vector<std::pair<Argument, Constant>> made;
  for (const Argument& argument : arguments) {
    const TensorSpec& tensor = graph_.tensor(argument.tensor);
    if (tensor.kind != TensorKind::input) fail("'", tensor.name, "' is an output and cannot be constant");
    if (argument.on_device) fail("'", tensor.name, "' lies on the device: constants are copied there from the host");
    const auto* data = static_cast<const std::byte*>(argument.data);
    const size_t bytes = tensor_bytes(tensor.dtype, argument.shape);
    Constant constant{device_.allocate(bytes, "a constant input"), {data, data + bytes}};
    const Layout layout = layouts_[static_cast<size_t>(argument.tensor)];
    std::vector<std::byte> blocks;
    device_.upload(constant.memory.data(), arranged(data, tensor.dtype, argument.shape, layout, blocks), bytes);
    Argument kept = argument;
    kept.data = constant.memory.data();
    kept.on_device = true;
    kept.host = constant.host.data();
    made.emplace_back(std::move(kept), std::move(constant));
  }
  for (auto& [kept, constant] : made) {
    arguments_.set({kept});
    constants_.insert_or_assign(kept.tensor, std::move(constant));
  }
}

std::vector<std::vector<int64_t>> DeviceProgram::output_shapes(const std::vector<Argument>& arguments) {
  const auto lease = device_.lease();
  return arguments_.output_shapes(arguments);
}

void DeviceProgram::check_weights() const {
  std::string missing;
  int count = 0;
  for (const Segment& segment : segments_) {
    for (const Segment::Operand& operand : segment.inputs) {
      const TensorSpec& tensor = graph_.tensor(operand.tensor);
      if (tensor.kind != TensorKind::weight || weights_->data(tensor.name, operand.layout) != nullptr) continue;
      missing += (count++ ? ", '" : "'") + tensor.name + "'";
    }
  }
  if (count > 0) fail(count == 1 ? "weight " : "weights ", missing, count == 1 ? " has" : " have", " not been set");
}

const DevicePlan& DeviceProgram::plan() {
  if (weights_->generation() != generation_) {
    check_weights();
    generation_ = weights_->generation();
  }
  std::vector<int64_t> sizes = arguments_.resolve_sizes(true);
  std::vector<bool> staged(graph_.tensors().size());
  for (int id : arguments_.externals()) staged[static_cast<size_t>(id)] = !arguments_.on_device(id);
  const auto found = std::find_if(plans_.begin(), plans_.end(),
                                  [&](const auto& plan) { return plan->sizes() == sizes && plan->staged() == staged; });
  if (found != plans_.end()) {
    std::rotate(plans_.begin(), found, found + 1);
  } else {
    auto made = std::make_unique<DevicePlan>(context_, segments_, staged, std::move(sizes));
    if (plans_.size() >= kMaxPlans) plans_.pop_back();
    plans_.insert(plans_.begin(), std::move(made));
  }
  return *plans_.front();
}

DeviceProgram::PlanInfo DeviceProgram::plan_info() {
  make_segments();
  const auto lease = device_.lease();
  return {segments_.size(), operations_, plan().arena_bytes(), device_.workspace_bytes()};
}

bool DeviceProgram::run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted) {
  make_segments();
  const auto lease = device_.lease();
  const int64_t begin = steady_now();
  bind(arguments);
  const DevicePlan& current = plan();
  arguments_.check_overlap();
  *sizes_ = current.sizes();
  std::optional<EventClock> clock;  // ends after the stream is idle
  if (by_node_) clock.emplace(device_, 2 * (segments_.size() + 1));
  EventClock* const marks = clock ? &*clock : nullptr;
  try {
    std::byte* arena = device_.arena(current.arena_bytes());
    upload_inputs(current, arena);
    const bool finished = run_segments(current, arena, marks, interrupted);
    if (finished) copy_views(current, arena, marks);
    device_.synchronize();
    if (finished && clock && record_.on()) record(current, begin, *clock);
    if (finished) download_outputs(current, arena);
    return finished;
  } catch (...) {
    // The stream must not use the caller's memory and the arena after this function returns.
    if (queue_) queue_->abandon();
    device_.settle();
    throw;
  }
}

void DeviceProgram::upload_inputs(const DevicePlan& plan, std::byte* arena) {
  if (plan.input_bytes() == 0) return;
  std::byte* staging = device_.staging(plan.input_bytes());
  std::vector<std::byte> blocks;
  for (int id : arguments_.externals()) {
    const TensorSpec& tensor = graph_.tensor(id);
    if (tensor.kind != TensorKind::input || !plan.in_arena(id)) continue;
    const auto* data = static_cast<const std::byte*>(arguments_.pointers()[static_cast<size_t>(id)]);
    std::byte* place = staging + plan.offset(id);
    const Layout layout = layouts_[static_cast<size_t>(id)];
    if (plan.bytes(id) == 0) continue;  // memory without bytes may be null, which memcpy does not take
    std::memcpy(place, arranged(data, tensor.dtype, plan.shape(id), layout, blocks), plan.bytes(id));
  }
  device_.upload_staged(arena, staging, plan.input_bytes());
}

void DeviceProgram::copy_views(const DevicePlan& plan, std::byte* arena, EventClock* clock) {
  if (plan.copies().empty()) return;
  if (clock != nullptr) clock->mark();
  const auto place = [&](int tensor) { return address(plan, arena, {tensor, layouts_[static_cast<size_t>(tensor)]}); };
  for (const DevicePlan::Copy& copy : plan.copies())
    device_.copy(place(copy.to), place(copy.from), plan.bytes(copy.to));
  if (clock != nullptr) clock->mark();
}

void DeviceProgram::download_outputs(const DevicePlan& plan, std::byte* arena) {
  for (int id : arguments_.externals()) {
    // An input that is written in place is copied back.
    const bool changed = graph_.tensor(id).kind == TensorKind::output || graph_.written(id);
    if (!changed || !plan.in_arena(id)) continue;
    if (layouts_[static_cast<size_t>(id)] == Layout::nz) {
      fail("input '", graph_.tensor(id).name, "' is written in FRACTAL_NZ, so it has to lie on the device");
    }
    device_.download(arguments_.pointers()[static_cast<size_t>(id)], arena + plan.offset(id), plan.bytes(id));
  }
}

void* DeviceProgram::address(const DevicePlan& plan, std::byte* arena, const Segment::Operand& operand) const {
  const int home = plan.home(operand.tensor);
  const TensorSpec& tensor = graph_.tensor(home);
  if (tensor.kind == TensorKind::weight) return weights_->data(tensor.name, operand.layout);
  if (plan.in_arena(home)) return arena + plan.offset(home);
  return arguments_.pointers()[static_cast<size_t>(home)];
}

void DeviceProgram::fill_pack(const DevicePlan& plan, std::byte* arena, size_t index) {
  const Segment& segment = segments_[index];
  ::atb::VariantPack& pack = *packs_[index];
  for (size_t i = 0; i < segment.inputs.size(); ++i) {
    const Segment::Operand& operand = segment.inputs[i];
    ::atb::Tensor& tensor = pack.inTensors.at(i);
    tensor.desc = plan.input(index, i);
    tensor.deviceData = address(plan, arena, operand);
    tensor.dataSize = desc_bytes(tensor.desc);
    tensor.hostData = nullptr;
    if (!operand.host_data) continue;
    // The copy that goes to the device, if there is one: the caller may change its memory after the checks. ATB's
    // interface has no const, but ATB only reads.
    tensor.hostData = plan.in_arena(operand.tensor) ? device_.staging(plan.input_bytes()) + plan.offset(operand.tensor)
                                                    : const_cast<void*>(arguments_.host(operand.tensor));
    if (tensor.hostData == nullptr) {
      fail("input '", graph_.tensor(operand.tensor).name, "' lies on the device, and ATB needs its values on the host",
           " too: give a host copy in runtime_params");
    }
  }
  check_sums(plan, segment, pack);
  for (size_t i = 0; i < segment.outputs.size(); ++i) {
    ::atb::Tensor& tensor = pack.outTensors.at(i);
    tensor.desc = plan.output(index, i);
    tensor.deviceData = address(plan, arena, segment.outputs[i]);
    tensor.dataSize = plan.bytes(segment.outputs[i].tensor);
  }
}

// ATB's documentation does not say what it computes for other lengths.
void DeviceProgram::check_sums(const DevicePlan& plan, const Segment& segment, const ::atb::VariantPack& pack) const {
  for (const Segment::Sum& sum : segment.sums) {
    const auto place = static_cast<size_t>(sum.input);
    const auto* lengths = static_cast<const int32_t*>(pack.inTensors.at(place).hostData);
    const int64_t count = plan.shape(segment.inputs[place].tensor)[0], rows = plan.shape(sum.rows)[0];
    const int64_t total = std::accumulate(lengths, lengths + count, int64_t{0});
    if (total == rows) continue;
    fail(describe(*sum.source), ": sequence lengths do not add up to the number of tokens: ", total, ", and ", rows);
  }
}

bool DeviceProgram::run_segments(const DevicePlan& plan, std::byte* arena, EventClock* clock,
                                 const std::function<bool()>& interrupted) {
  try {
    for (size_t index = 0; index < segments_.size(); ++index) {
      if (interrupted && interrupted()) {
        if (queue_) queue_->drain();
        return false;
      }
      if (queue_ && queue_->failed()) queue_->drain();  // throws the error of the queue
      fill_pack(plan, arena, index);
      launch(index, clock);
    }
    if (queue_) queue_->drain();
  } catch (const LaunchFailure& failure) {
    // Runs on this thread, not on the queue's: diagnosing prepares operations, as this thread may be doing.
    if (queue_) queue_->abandon();
    fail_in(failure.segment, "launch", failure.status);
  }
  return true;
}

void DeviceProgram::launch(size_t index, EventClock* clock) {
  ::atb::Operation* operation = segments_[index].operation->get();
  ::atb::VariantPack& pack = *packs_[index];
  uint64_t wanted = 0;
  const ::atb::Status status = operation->Setup(pack, wanted, device_.context());
  if (status != ::atb::NO_ERROR) fail_in(index, "prepare", status);
  // A larger workspace has another address: operations in the queue have to be launched with the old one.
  if (queue_ && !device_.workspace_fits(wanted)) queue_->drain();
  auto* workspace = reinterpret_cast<uint8_t*>(wanted > 0 ? device_.workspace(wanted) : nullptr);
  const auto execute = [this, index, operation, &pack, workspace, wanted, clock] {
    if (clock != nullptr) clock->mark();
    const ::atb::Status launched = operation->Execute(pack, workspace, wanted, device_.context());
    if (launched != ::atb::NO_ERROR) throw LaunchFailure{index, launched};
    if (clock != nullptr) clock->mark();
    if (!device_.options().launch_blocking) return;
    try {
      device_.synchronize();
    } catch (const Error& error) {
      fail(segments_[index].label, ": ", error.what());
    }
  };
  if (queue_) {
    queue_->push(execute);
  } else {
    execute();
  }
}

void DeviceProgram::set_recording(bool on) {
  {
    const std::lock_guard lock(making_);
    const auto lease = device_.lease();
    record_.set(on);
  }
  make_segments();  // now, not in the first run that is recorded
}

std::vector<RunTimes> DeviceProgram::take_runs() {
  const auto lease = device_.lease();
  return record_.take();
}

void DeviceProgram::record(const DevicePlan& plan, int64_t begin, const EventClock& clock) {
  RunTimes run{begin, 0, {}, {}};
  for (const Segment& segment : segments_) {
    run.nodes.push_back(static_cast<int32_t>(segment.steps.front().source - graph_.nodes().data()));
  }
  if (!plan.copies().empty()) run.nodes.push_back(-1);
  const std::vector<int64_t> moments = clock.moments();
  for (size_t i = 0; i + 1 < moments.size(); i += 2) run.times.push_back({moments[i], moments[i + 1]});
  run.end = steady_now();
  record_.add(std::move(run));
}

void DeviceProgram::fail_in(size_t index, const char* what, ::atb::Status status) {
  const Segment& segment = segments_[index];
  // Before other calls replace it.
  const char* message = status == ::atb::ERROR_CANN_ERROR ? aclGetRecentErrMsg() : nullptr;
  const std::string reported = message == nullptr ? "" : std::string(", ") + message;
  fail("ATB cannot ", what, " the operations of ", segment.label, ": ", atb_status_text(status), reported, "; ",
       diagnose(segment, *packs_[index], *sizes_, device_.context()));
}

}  // namespace atb_core::ascend
