// SPDX-License-Identifier: Apache-2.0
#include "graph/weight_store.h"

#include <cstring>
#include <numeric>

#include "atb/error.h"
#include "cpu/movement.h"

namespace atb {
namespace {

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count))
      fail("the shape ", shape_text(shape), " is impossible");
  }
  return count;
}

}  // namespace

void WeightStore::require_same(const std::string& weight, const Entry& entry, DataType dtype,
                               const std::vector<int64_t>& shape) const {
  if (entry.dtype == dtype && entry.shape == shape) return;
  fail("weight '", weight, "' is ", name(dtype), shape_text(shape), ", but ", name(entry.dtype),
       shape_text(entry.shape), entry.present ? " was set" : " is expected");
}

WeightStore::Layout WeightStore::layout_for(const Entry& entry) {
  const auto used = [&](WeightUse use) { return entry.uses[static_cast<size_t>(use)]; };
  const bool nk = used(WeightUse::linear_nk), kn = used(WeightUse::linear_kn);
  if (entry.shape.size() != 2 || !is_float(entry.dtype) || used(WeightUse::plain) || nk == kn) return Layout::plain;
  // Rows of a [k, n] matrix are columns of the packed one: cheap to read one by one only in the other case.
  if (kn) return used(WeightUse::rows) ? Layout::plain : Layout::kn;
  return Layout::nk;
}

cpu::PackedWeight WeightStore::matrix(const Entry& entry) {
  const bool nk = entry.layout == Layout::nk;
  return {entry.dtype, entry.shape[nk ? 0 : 1], entry.shape[nk ? 1 : 0], entry.memory.data()};
}

// The content in the given layout, from contiguous memory.
Buffer WeightStore::stored(cpu::ThreadPool::Lease& lease, const Entry& entry, Layout layout, const void* data) {
  if (layout == Layout::plain) {
    const size_t bytes = static_cast<size_t>(element_count(entry.shape)) * itemsize(entry.dtype);
    Buffer memory(bytes);
    lease.run([&](int index, cpu::Barrier&) {
      const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
      const auto [begin, end] = worker.share(static_cast<int64_t>(bytes), 4096);
      if (end > begin) {
        std::memcpy(memory.data() + begin, static_cast<const std::byte*>(data) + begin,
                    static_cast<size_t>(end - begin));
      }
    });
    return memory;
  }
  const bool kn = layout == Layout::kn;
  const int64_t n = entry.shape[kn ? 1 : 0], k = entry.shape[kn ? 0 : 1];
  Buffer memory(cpu::packed_bytes(runtime_->isa(), entry.dtype, n, k));
  lease.run([&](int index, cpu::Barrier&) {
    const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
    const auto [begin, end] = worker.share(cpu::packed_blocks(n));
    if (end > begin) cpu::pack(runtime_->isa(), data, entry.dtype, n, k, kn, memory.data(), begin, end);
  });
  return memory;
}

// The content as contiguous memory of the declared shape, from a packed layout.
Buffer WeightStore::unpacked(const Entry& entry) {
  const cpu::PackedWeight packed = matrix(entry);
  Buffer rows(static_cast<size_t>(packed.n * packed.k) * itemsize(entry.dtype));
  std::vector<int64_t> all(static_cast<size_t>(packed.n));
  std::iota(all.begin(), all.end(), int64_t{0});
  cpu::ErrorSlot errors;
  std::atomic<int64_t> ticket{0};
  const cpu::Worker alone{.ticket = &ticket, .error = &errors};
  cpu::gather_packed_rows(runtime_->isa(), packed, all.data(), DataType::i64, packed.n, rows.data(), alone);
  if (entry.layout == Layout::nk) return rows;
  Buffer turned(rows.bytes());
  const TensorView from{rows.data(), entry.dtype, 2, {packed.n, packed.k}};
  constexpr int64_t kTurn[] = {1, 0};
  cpu::copy(cpu::transpose_plan(from, kTurn), from.data, turned.data(), alone);
  return turned;
}

void WeightStore::declare(const std::string& weight, DataType dtype, const std::vector<int64_t>& shape,
                          const std::vector<WeightUse>& uses) {
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  const auto [found, added] = entries_.try_emplace(weight);
  Entry& entry = found->second;
  if (added) {
    entry.dtype = dtype;
    entry.shape = shape;
  }
  require_same(weight, entry, dtype, shape);
  for (WeightUse use : uses) entry.uses[static_cast<size_t>(use)] = true;
  const Layout wanted = layout_for(entry);
  if (!entry.present || wanted == entry.layout) return;
  Buffer plain = entry.layout == Layout::plain ? std::move(entry.memory) : unpacked(entry);
  entry.memory = wanted == Layout::plain ? std::move(plain) : stored(lease, entry, wanted, plain.data());
  entry.layout = wanted;
  ++generation_;
}

void WeightStore::set(const std::string& weight, const void* data, DataType dtype, const std::vector<int64_t>& shape) {
  if (element_count(shape) > 0 && data == nullptr) fail("weight '", weight, "' has no data");
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  const auto [found, added] = entries_.try_emplace(weight);
  Entry& entry = found->second;
  if (added) {
    entry.dtype = dtype;
    entry.shape = shape;
  }
  require_same(weight, entry, dtype, shape);
  const Layout layout = layout_for(entry);
  entry.memory = Buffer();
  entry.present = false;
  entry.memory = stored(lease, entry, layout, data);
  entry.layout = layout;
  entry.present = true;
  ++generation_;
}

bool WeightStore::contains(const std::string& weight) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(weight);
  return found != entries_.end() && found->second.present;
}

std::vector<std::string> WeightStore::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> result;
  for (const auto& [weight, entry] : entries_) {
    if (entry.present) result.push_back(weight);
  }
  return result;
}

size_t WeightStore::bytes() const {
  const std::lock_guard lock(mutex_);
  size_t total = 0;
  for (const auto& [weight, entry] : entries_) total += entry.memory.bytes();
  return total;
}

WeightStore::Info WeightStore::info(const std::string& weight) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(weight);
  if (found == entries_.end() || !found->second.present) fail("weight '", weight, "' is not set");
  const Entry& entry = found->second;
  return {entry.dtype, entry.shape, entry.layout != Layout::plain, entry.memory.bytes()};
}

WeightStore::Ref WeightStore::ref(const std::string& weight) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(weight);
  if (found == entries_.end() || !found->second.present) return {};
  const Entry& entry = found->second;
  if (entry.layout == Layout::plain) return {.data = entry.memory.data()};
  return {.data = entry.memory.data(), .packed = true, .matrix = matrix(entry)};
}

uint64_t WeightStore::generation() const {
  const std::lock_guard lock(mutex_);
  return generation_;
}

}  // namespace atb
