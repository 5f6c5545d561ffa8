// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <vector>

#include "atb/layout.h"
#include "atb/segment.h"
#include "graph/arguments.h"

namespace atb_core::ascend {

// Segments for one choice of sizes: concrete shapes, ATB's descriptions, and places in the arena.
class DevicePlan {
 public:
  // How a tensor with memory of its own gets it.
  enum class Place { weight, external, arena };

  // An output that is the memory of something else, and is copied at the end.
  struct Copy {
    int from, to;
  };

  // Throws Error for a tensor without elements: ATB takes none.
  DevicePlan(const SegmentContext& context, const std::vector<Segment>& segments, const std::vector<bool>& staged,
             std::vector<int64_t> sizes);

  const std::vector<int64_t>& sizes() const { return sizes_; }
  const std::vector<bool>& staged() const { return staged_; }
  std::span<const int64_t> shape(int tensor) const { return shapes_[static_cast<size_t>(tensor)]; }
  size_t bytes(int tensor) const { return bytes_[static_cast<size_t>(tensor)]; }
  // What has no other memory lies in the arena from here on.
  bool in_arena(int tensor) const { return offsets_.contains(tensor); }
  size_t offset(int tensor) const { return offsets_.at(tensor); }
  size_t arena_bytes() const { return arena_bytes_; }
  // The arena begins with the inputs that are copied there, so that one copy takes all of them.
  size_t input_bytes() const { return input_bytes_; }
  const std::vector<Copy>& copies() const { return copies_; }
  // The tensor whose memory another one uses: its own, or that of an output.
  int home(int tensor) const { return homes_[static_cast<size_t>(tensor)]; }

  // By segment and operand.
  const ::atb::TensorDesc& input(size_t segment, size_t operand) const { return descs_[segment].inputs[operand]; }
  const ::atb::TensorDesc& output(size_t segment, size_t operand) const { return descs_[segment].outputs[operand]; }

 private:
  struct Descs {
    std::vector<::atb::TensorDesc> inputs, outputs;
  };

  void place_outputs(const SegmentContext& context);
  void place_inputs(const SegmentContext& context, const std::vector<Segment>& segments);
  void place_arena(const SegmentContext& context, const std::vector<Segment>& segments);
  bool is_staged(int tensor) const { return staged_[static_cast<size_t>(tensor)]; }

  std::vector<int64_t> sizes_;
  std::vector<bool> staged_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<size_t> bytes_;
  std::vector<int> homes_;
  std::vector<Copy> copies_;
  std::map<int, size_t> offsets_;
  size_t arena_bytes_ = 0, input_bytes_ = 0;
  std::vector<Descs> descs_;
};

}  // namespace atb_core::ascend
