// SPDX-License-Identifier: Apache-2.0
#include "atb/weights.h"

#include "atb_core/error.h"
#include "graph/dims.h"

namespace atb_core::ascend {

DeviceWeights::~DeviceWeights() {
  std::vector<DeviceMemory> memory;
  for (auto& [name, entry] : entries_) {
    for (auto& [layout, copy] : entry.copies) memory.push_back(std::move(copy));
  }
  device_->discard(std::move(memory));
}

DeviceWeights::Entry& DeviceWeights::entry_of(const std::string& name, DataType dtype,
                                              const std::vector<int64_t>& shape) {
  const auto [found, fresh] = entries_.try_emplace(name, Entry{dtype, shape, {}, {}});
  const Entry& entry = found->second;
  if (!fresh && (entry.dtype != dtype || entry.shape != shape)) {
    fail("weight '", name, "' is ", atb_core::name(entry.dtype), " ", shape_text(entry.shape), ", not ",
         atb_core::name(dtype), " ", shape_text(shape));
  }
  return found->second;
}

void DeviceWeights::declare(const std::string& name, DataType dtype, const std::vector<int64_t>& shape, Layout layout) {
  const auto lease = device_->lease();
  describe_tensor(dtype, shape, layout);  // throws if the layout cannot hold the shape
  Entry& entry = entry_of(name, dtype, shape);
  entry.layouts.insert(layout);
  if (!entry.present || entry.copies.contains(layout)) return;
  write(entry, name, rows_of(entry, name).data());
}

// Returns a copy on the host of a weight that another program stores in another layout.
std::vector<std::byte> DeviceWeights::rows_of(const Entry& entry, const std::string& name) const {
  if (entry.format.bits > 0) fail("weight '", name, "' is stored as integers, and a program wants its values");
  std::vector<std::byte> host(tensor_bytes(entry.dtype, entry.shape));
  for (const Layout layout : {Layout::nd, Layout::transposed}) {
    const auto copy = entry.copies.find(layout);
    if (copy == entry.copies.end()) continue;
    device_->download(host.data(), copy->second.data(), host.size());
    if (layout == Layout::nd) return host;
    const int64_t turned[] = {entry.shape[1], entry.shape[0]};
    std::vector<std::byte> rows;
    arranged(host.data(), entry.dtype, turned, layout, rows);
    return rows;
  }
  fail("weight '", name, "' was set before a program wanted it in rows: set it again");
}

void DeviceWeights::write(Entry& entry, const std::string& name, const std::byte* data) {
  const size_t bytes = tensor_bytes(entry.dtype, entry.shape);
  std::map<Layout, DeviceMemory> copies;
  for (const Layout layout : entry.layouts) {
    DeviceMemory memory = device_->allocate(bytes, ("weight " + name).c_str());
    std::vector<std::byte> made;
    device_->upload(memory.data(), arranged(data, entry.dtype, entry.shape, layout, made), bytes);
    copies.emplace(layout, std::move(memory));
  }
  entry.copies = std::move(copies);
  entry.present = true;
  set_format(entry, {});
  entry.parts = entry.shape.empty() ? 0 : entry.shape[0];
  ++generation_;
}

void DeviceWeights::set_format(Entry& entry, const QuantFormat& format) {
  if (entry.format == format) return;
  entry.format = format;
  ++formats_generation_;
}

void DeviceWeights::set_quantized(const std::string& name, DataType dtype, const std::vector<int64_t>& shape,
                                  const QuantFormat& format, const void* integers, const void* scales,
                                  const void* offsets) {
  if (shape.size() != 2) fail("weight '", name, "' ", shape_text(shape), " is no matrix");
  const std::string problem = quant_problem(device_->info(), dtype, shape[0], shape[1], format);
  if (!problem.empty()) fail("weight '", name, "': ", problem);
  const auto lease = device_->lease();
  Entry& entry = entry_of(name, dtype, shape);
  std::map<Layout, DeviceMemory> copies;
  const auto copy = [&](Layout layout, const void* data) {
    const size_t bytes = desc_bytes(describe_part(format, dtype, shape, layout));
    DeviceMemory memory = device_->allocate(bytes, ("weight " + name).c_str());
    device_->upload(memory.data(), data, bytes);
    copies.emplace(layout, std::move(memory));
  };
  copy(Layout::integers, integers);
  copy(Layout::scales, scales);
  if (format.offsets) copy(Layout::offsets, offsets);
  entry.copies = std::move(copies);
  entry.present = true;
  entry.parts = shape[0];
  ++generation_;
  set_format(entry, format);
}

std::map<int, QuantFormat> DeviceWeights::formats(const Graph& graph) const {
  const auto lease = device_->lease();
  std::map<int, QuantFormat> result;
  for (size_t i = 0; i < graph.tensors().size(); ++i) {
    const TensorSpec& tensor = graph.tensors()[i];
    const auto found = tensor.kind == TensorKind::weight ? entries_.find(tensor.name) : entries_.end();
    if (found != entries_.end() && found->second.format.bits > 0) result.emplace(i, found->second.format);
  }
  return result;
}

void DeviceWeights::set(const std::string& name, const void* data, DataType dtype, const std::vector<int64_t>& shape) {
  const auto lease = device_->lease();
  Entry& entry = entry_of(name, dtype, shape);
  if (entry.layouts.empty()) entry.layouts.insert(Layout::nd);
  write(entry, name, static_cast<const std::byte*>(data));
}

void DeviceWeights::set_part(const std::string& name, int64_t begin, const void* data, DataType dtype,
                             const std::vector<int64_t>& shape, int64_t whole) {
  if (shape.empty() || begin < 0 || shape[0] < 1 || begin + shape[0] > whole) {
    fail("rows from ", begin, " on are no part of weight '", name, "', which has ", whole);
  }
  std::vector<int64_t> full = shape;
  full[0] = whole;
  const auto lease = device_->lease();
  Entry& entry = entry_of(name, dtype, full);
  if (entry.layouts.contains(Layout::nz) || entry.layouts.contains(Layout::transposed)) {
    fail("weight '", name, "' can only be set as a whole on this device");
  }
  if (entry.layouts.empty()) entry.layouts.insert(Layout::nd);
  if (begin == 0) entry.parts = 0;
  if (begin != entry.parts) {
    fail("a part of weight '", name, "' begins at ", begin, ", but the next one has to begin at ", entry.parts);
  }
  const size_t bytes = tensor_bytes(dtype, full);
  if (begin == 0) {
    set_format(entry, {});
    entry.present = false;
    ++generation_;
    entry.copies.clear();
    entry.copies.emplace(Layout::nd, device_->allocate(bytes, ("weight " + name).c_str()));
  }
  const size_t row = bytes / static_cast<size_t>(whole);
  device_->upload(entry.copies[Layout::nd].data() + static_cast<size_t>(begin) * row, data,
                  static_cast<size_t>(shape[0]) * row);
  entry.parts = begin + shape[0];
  entry.present = entry.parts == whole;
}

bool DeviceWeights::contains(const std::string& name) const {
  const auto lease = device_->lease();
  const auto found = entries_.find(name);
  return found != entries_.end() && found->second.present;
}

std::vector<std::string> DeviceWeights::names() const {
  const auto lease = device_->lease();
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) {
    if (entry.present) result.push_back(name);
  }
  return result;
}

size_t DeviceWeights::bytes() const {
  const auto lease = device_->lease();
  size_t total = 0;
  for (const auto& [name, entry] : entries_) {
    for (const auto& [layout, memory] : entry.copies) total += memory.bytes();
  }
  return total;
}

DeviceWeights::Info DeviceWeights::info(const std::string& name) const {
  const auto lease = device_->lease();
  const auto found = entries_.find(name);
  if (found == entries_.end() || !found->second.present) fail("weight '", name, "' has not been set");
  const Entry& entry = found->second;
  size_t total = 0;
  for (const auto& [layout, memory] : entry.copies) total += memory.bytes();
  return {entry.dtype, entry.shape, total};
}

void* DeviceWeights::data(const std::string& name, Layout layout) const {
  const auto found = entries_.find(name);
  if (found == entries_.end() || !found->second.present) return nullptr;
  const auto copy = found->second.copies.find(layout);
  return copy == found->second.copies.end() ? nullptr : copy->second.data();
}

}  // namespace atb_core::ascend
