// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "atb/device.h"
#include "atb/layout.h"

namespace atb_core::ascend {

// The weights of one model on a device, shared by all its programs: one copy of each in every layout that some
// program wants. Programs declare what they want before or after a weight is set.
class DeviceWeights {
 public:
  explicit DeviceWeights(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  ~DeviceWeights();
  DeviceWeights(const DeviceWeights&) = delete;
  DeviceWeights& operator=(const DeviceWeights&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }

  // Announces that a program uses a weight in this layout. Throws Error when another program or the weight itself
  // disagrees about shape or type.
  void declare(const std::string& name, DataType dtype, const std::vector<int64_t>& shape, Layout layout);

  // Copies a contiguous tensor of the host; `data` is not needed afterwards. A weight may be set again.
  void set(const std::string& name, const void* data, DataType dtype, const std::vector<int64_t>& shape);

  // Copies rows [begin, begin + shape[0]) of a first dimension of `whole`. Parts come in ascending order without gaps;
  // one that begins at 0 starts anew, and the weight is set when the last part is. Only for weights in layout nd.
  void set_part(const std::string& name, int64_t begin, const void* data, DataType dtype,
                const std::vector<int64_t>& shape, int64_t whole);

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  // Bytes on the device.
  size_t bytes() const;
  struct Info {
    DataType dtype;
    std::vector<int64_t> shape;
    size_t bytes;
  };
  // Throws Error when there is no such weight.
  Info info(const std::string& name) const;

  // The address on the device, null when the weight is not set. Needs the device's lease; valid until the weight is
  // set again.
  void* data(const std::string& name, Layout layout) const;
  // Changes whenever some address may have.
  uint64_t generation() const { return generation_; }

 private:
  struct Entry {
    DataType dtype;
    std::vector<int64_t> shape;
    std::set<Layout> layouts;
    std::map<Layout, DeviceMemory> copies;
    int64_t parts = 0;  // rows that are there
    bool present = false;
  };

  Entry& entry_of(const std::string& name, DataType dtype, const std::vector<int64_t>& shape);
  std::vector<std::byte> rows_of(const Entry& entry, const std::string& name) const;
  void write(Entry& entry, const std::string& name, const std::byte* data);

  std::shared_ptr<Device> device_;
  std::map<std::string, Entry> entries_;  // guarded by the device's lease
  uint64_t generation_ = 1;
};

}  // namespace atb_core::ascend
