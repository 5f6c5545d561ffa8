// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "atb/device_plan.h"
#include "atb/event_clock.h"
#include "atb/launch_queue.h"
#include "atb/weights.h"
#include "graph/run_times.h"

namespace atb_core::ascend {

// A graph that runs on a device. As atb_core::Program, but tensors of the host are copied.
class DeviceProgram {
 public:
  // The number of plans kept; the least recently used one is dropped.
  static constexpr size_t kMaxPlans = 64;

  // `segments` has a number for each node: consecutive nodes of one number become one operation of ATB. Throws Error if
  // the graph is invalid or the device cannot run it.
  DeviceProgram(std::shared_ptr<DeviceWeights> weights, GraphSpec spec, const std::vector<int>& segments);
  ~DeviceProgram();
  DeviceProgram(const DeviceProgram&) = delete;
  DeviceProgram& operator=(const DeviceProgram&) = delete;

  const Graph& graph() const { return graph_; }
  // Returns the tensor's number. Throws Error if no input or output has the name.
  int external(const std::string& name) const { return arguments_.external(name); }

  // Sets the memory of inputs and outputs until it is set again. The caller keeps it alive while the program runs.
  void set(const std::vector<Argument>& arguments);
  // Copies inputs of the host to the device once; they keep these values until set again.
  void set_constants(const std::vector<Argument>& arguments);
  // Sets arguments for this and later runs, and runs. When it returns, outputs on the host have their values and the
  // device is idle. `interrupted` is called between segments; if it returns true, the run ends and run() returns false.
  bool run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted = {});
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments);

  // Starts or stops to keep when nodes run; drops what was kept. Meanwhile each node is an operation of its own.
  void set_recording(bool on);
  // Returns and forgets the kept runs, at most the latest RunRecord::kMost. The only thread is the stream.
  std::vector<RunTimes> take_runs();

  struct PlanInfo {
    size_t segments, operations, arena_bytes, workspace_bytes;
  };
  // Returns the memory of the plan for the present arguments; builds the plan if needed.
  PlanInfo plan_info();
  size_t num_plans() const { return plans_.size(); }

 private:
  struct Constant {
    DeviceMemory memory;
    std::vector<std::byte> host;
  };

  void bind(const std::vector<Argument>& arguments);
  // Returns the argument with a copy of its own in place of a mask that lies on the device.
  Argument in_ones(Argument given);
  void make_segments();
  void build_operations(std::vector<Segment>& segments);
  void declare_weights(const std::vector<Segment>& segments);
  void choose_layouts();
  const DevicePlan& plan();
  void check_weights() const;
  void upload_inputs(const DevicePlan& plan, std::byte* arena);
  void copy_views(const DevicePlan& plan, std::byte* arena, EventClock* clock);
  void download_outputs(const DevicePlan& plan, std::byte* arena);
  bool run_segments(const DevicePlan& plan, std::byte* arena, EventClock* clock,
                    const std::function<bool()>& interrupted);
  void fill_pack(const DevicePlan& plan, std::byte* arena, size_t index);
  void check_sums(const DevicePlan& plan, const Segment& segment, const ::atb::VariantPack& pack) const;
  void launch(size_t index, EventClock* clock);
  void record(const DevicePlan& plan, int64_t begin, const EventClock& clock);
  void* address(const DevicePlan& plan, std::byte* arena, const Segment::Operand& operand) const;
  [[noreturn]] void fail_in(size_t index, const char* what, ::atb::Status status);

  std::shared_ptr<DeviceWeights> weights_;
  Device& device_;
  const Graph graph_;
  SegmentContext context_;
  Arguments arguments_;
  const std::vector<int> numbers_;  // of the segments, by node
  std::vector<Segment> segments_;
  std::vector<Layout> layouts_;                             // of inputs, by tensor
  std::vector<std::unique_ptr<::atb::VariantPack>> packs_;  // by segment; 13 KiB each, so never copied
  std::shared_ptr<std::vector<int64_t>> sizes_;             // of the present run, read by reshape functions
  std::map<int, Constant> constants_;
  std::vector<std::unique_ptr<DevicePlan>> plans_;  // most recently used first
  uint64_t generation_ = 0;                         // of the weights, when they were last checked
  std::mutex making_;                               // held while segments are made
  std::atomic<uint64_t> formats_ = 0;               // generation of the weights' formats, when that was last done
  bool by_node_ = false;                            // each node is a segment
  RunRecord record_;
  size_t operations_ = 0;
  std::unique_ptr<LaunchQueue> queue_;
};

}  // namespace atb_core::ascend
