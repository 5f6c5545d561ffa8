// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <vector>

#include "atb/layout.h"
#include "atb/segment.h"
#include "graph/arguments.h"

namespace atb_core::ascend {

// Segments for one set of sizes: concrete shapes, ATB's descriptions, and offsets in the arena.
class DevicePlan {
 public:
  // The kind of memory of a tensor that does not share it.
  enum class Place { weight, external, arena };

  // An output that shares the memory of another tensor and is copied at the end.
  struct Copy {
    int from, to;
  };

  // Throws Error for a tensor without elements, which ATB does not accept.
  DevicePlan(const SegmentContext& context, const std::vector<Segment>& segments, const std::vector<bool>& staged,
             std::vector<int64_t> sizes);

  const std::vector<int64_t>& sizes() const { return sizes_; }
  const std::vector<bool>& staged() const { return staged_; }
  std::span<const int64_t> shape(int tensor) const { return shapes_[static_cast<size_t>(tensor)]; }
  size_t bytes(int tensor) const { return bytes_[static_cast<size_t>(tensor)]; }
  // Sets the start of the arena, which holds all tensors without other memory.
  bool in_arena(int tensor) const { return offsets_.contains(tensor); }
  size_t offset(int tensor) const { return offsets_.at(tensor); }
  size_t arena_bytes() const { return arena_bytes_; }
  // The arena begins with the inputs that are copied there, so that one copy moves all of them.
  size_t input_bytes() const { return input_bytes_; }
  const std::vector<Copy>& copies() const { return copies_; }
  // Returns the tensor whose memory a tensor uses: its own, or that of an output.
  int home(int tensor) const { return homes_[static_cast<size_t>(tensor)]; }

  // Indexed by segment and operand.
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
