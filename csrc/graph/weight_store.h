// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu/linear.h"
#include "graph/memory.h"
#include "graph/op.h"
#include "graph/runtime.h"

namespace atb {

// The weights of one model, shared by all its programs: one resident copy of each, in the layout that all its
// uses together allow. Programs say how they use a weight before or after it is set; a weight that is
// already there changes its layout if need be. No weight changes while a program of the same runtime runs.
class WeightStore {
 public:
  explicit WeightStore(std::shared_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

  // Announces that a program uses a weight in these ways. Throws Error when another program or the weight
  // itself disagrees about shape or type.
  void declare(const std::string& name, DataType dtype, const std::vector<int64_t>& shape,
               const std::vector<WeightUse>& uses);

  // Copies (or packs) a contiguous tensor; `data` is not needed afterwards. A weight may be set again.
  void set(const std::string& name, const void* data, DataType dtype, const std::vector<int64_t>& shape);

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  size_t bytes() const;

  struct Info {
    DataType dtype;
    std::vector<int64_t> shape;
    bool packed;
    size_t bytes;
  };
  // Throws Error when there is no such weight.
  Info info(const std::string& name) const;

  // What a plan binds to. Valid until the generation changes; null data when the weight is not set.
  struct Ref {
    const std::byte* data = nullptr;  // plain
    bool packed = false;
    cpu::PackedWeight matrix = {};
  };
  Ref ref(const std::string& name) const;

  // Changes whenever some Ref may have become invalid.
  uint64_t generation() const;

 private:
  enum class Layout { plain, nk, kn };
  struct Entry {
    DataType dtype;
    std::vector<int64_t> shape;
    std::vector<bool> uses = std::vector<bool>(4);  // by WeightUse
    Layout layout = Layout::plain;
    Buffer memory;
    bool present = false;
  };

  static Layout layout_for(const Entry& entry);
  Buffer stored(cpu::ThreadPool::Lease& lease, const Entry& entry, Layout layout, const void* data);
  Buffer unpacked(const Entry& entry);
  static cpu::PackedWeight matrix(const Entry& entry);
  void require_same(const std::string& name, const Entry& entry, DataType dtype,
                    const std::vector<int64_t>& shape) const;

  std::shared_ptr<Runtime> runtime_;
  // Taken after the pool's lease, never before it.
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
  uint64_t generation_ = 1;
};

}  // namespace atb
