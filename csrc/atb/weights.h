// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "atb/device.h"
#include "atb/layout.h"

namespace atb_core::ascend {

// The weights of one model on a device, shared by all its programs: one copy of each in every layout that a program
// needs. Programs declare layouts before or after a weight is set.
class DeviceWeights {
 public:
  explicit DeviceWeights(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  ~DeviceWeights();
  DeviceWeights(const DeviceWeights&) = delete;
  DeviceWeights& operator=(const DeviceWeights&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }

  // Declares that a program uses a weight in this layout. Throws Error if another program or the weight itself has
  // another shape or type.
  void declare(const std::string& name, DataType dtype, const std::vector<int64_t>& shape, Layout layout);

  // Copies a contiguous tensor of the host; `data` is not needed afterwards. A weight may be set again.
  void set(const std::string& name, const void* data, DataType dtype, const std::vector<int64_t>& shape);

  // Copies rows [begin, begin + shape[0]) of a first dimension of `whole`. Parts come in ascending order without gaps;
  // a part that begins at 0 starts again, and the weight is set with its last part. Only for weights in layout nd.
  void set_part(const std::string& name, int64_t begin, const void* data, DataType dtype,
                const std::vector<int64_t>& shape, int64_t whole);

  // Copies a matrix [n, k] as integers with scales and, if the format has them, offsets, arranged as describe_part()
  // says. Programs that read it make their operations again. Throws Error if the device cannot multiply by it.
  void set_quantized(const std::string& name, DataType dtype, const std::vector<int64_t>& shape,
                     const QuantFormat& format, const void* integers, const void* scales, const void* offsets);
  // Returns the formats of a graph's weights that are stored as integers, by tensor.
  std::map<int, QuantFormat> formats(const Graph& graph) const;
  // Returns a number, at least 1, that changes when a weight gets another format.
  uint64_t formats_generation() const { return formats_generation_; }

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  // Returns the bytes on the device.
  size_t bytes() const;
  struct Info {
    DataType dtype;
    std::vector<int64_t> shape;
    size_t bytes;
  };
  // Throws Error if there is no such weight.
  Info info(const std::string& name) const;

  // Returns the address on the device, null if the weight is not set. The caller holds the device's lease. Valid until
  // the weight is set again.
  void* data(const std::string& name, Layout layout) const;
  // Returns a number that changes when an address may have changed.
  uint64_t generation() const { return generation_; }

 private:
  struct Entry {
    DataType dtype;
    std::vector<int64_t> shape;
    std::set<Layout> layouts;
    std::map<Layout, DeviceMemory> copies;
    QuantFormat format = {};
    int64_t parts = 0;  // rows that are set
    bool present = false;
  };

  Entry& entry_of(const std::string& name, DataType dtype, const std::vector<int64_t>& shape);
  std::vector<std::byte> rows_of(const Entry& entry, const std::string& name) const;
  void write(Entry& entry, const std::string& name, const std::byte* data);

  std::shared_ptr<Device> device_;
  std::map<std::string, Entry> entries_;  // guarded by the device's lease
  void set_format(Entry& entry, const QuantFormat& format);

  uint64_t generation_ = 1;
  std::atomic<uint64_t> formats_generation_ = 1;
};

}  // namespace atb_core::ascend
