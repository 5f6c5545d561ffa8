// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/weight_store.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>

#include "atb_core/error.h"
#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/movement.h"

namespace atb_core {
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

// Returns the weight's entry, a new one if there is none.
WeightStore::Entry& WeightStore::entry_of(const std::string& weight, DataType dtype,
                                          const std::vector<int64_t>& shape) {
  const auto [found, added] = entries_.try_emplace(weight);
  Entry& entry = found->second;
  if (added) {
    entry.dtype = dtype;
    entry.shape = shape;
  }
  if (entry.dtype == dtype && entry.shape == shape) return entry;
  fail("weight '", weight, "' is ", name(dtype), shape_text(shape), ", but ", name(entry.dtype),
       shape_text(entry.shape), entry.present ? " was set" : " is expected");
}

size_t WeightStore::Entry::bytes() const {
  size_t total = memory.bytes();
  for (const Buffer& piece : piece_memory) total += piece.bytes();
  return total;
}

void WeightStore::Entry::clear() {
  memory = Buffer();
  pieces.clear();
  piece_memory.clear();
  present = false;
  parts = 0;
}

WeightStore::Layout WeightStore::layout_for(const Entry& entry) {
  const auto used = [&](WeightUse use) { return entry.uses[static_cast<size_t>(use)]; };
  const bool nk = used(WeightUse::linear_nk), kn = used(WeightUse::linear_kn), rows = used(WeightUse::rows);
  const bool stack = entry.shape.size() == 3;
  if (entry.layout == Layout::quantized && !kn && !used(WeightUse::plain)) return Layout::quantized;
  if (entry.shape.size() != 2 && !stack) return Layout::plain;
  const bool packable = is_float(entry.dtype) || entry.dtype == DataType::i8;
  if (!packable || used(WeightUse::plain) || nk == kn) return Layout::plain;
  if (entry.dtype == DataType::i8 && (rows || stack)) return Layout::plain;
  // A row of a [k, n] matrix is a column of the packed one; single rows are cheap to read only from [n, k].
  if (rows && (kn || stack)) return Layout::plain;
  return kn ? Layout::kn : Layout::nk;
}

cpu::PackedWeight WeightStore::matrix(const Entry& entry) {
  if (entry.layout != Layout::quantized) {
    return {entry.dtype, entry.n(), entry.k(), entry.memory.data(), entry.matrices()};
  }
  if (entry.pieces.size() == 1) return entry.pieces.front();
  return {.dtype = entry.dtype, .n = entry.n(), .k = entry.k(), .pieces = entry.pieces};
}

// Returns the bytes of a weight that is not quantised.
size_t WeightStore::stored_bytes(const Entry& entry) const {
  if (entry.layout == Layout::plain) return static_cast<size_t>(element_count(entry.shape)) * itemsize(entry.dtype);
  const size_t one = cpu::packed_bytes(runtime_->isa(), entry.dtype, entry.n(), entry.k());
  return static_cast<size_t>(entry.matrices()) * one;
}

// Writes the part [begin, end) of the first dimension from contiguous memory into entry.memory.
void WeightStore::write(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data, int64_t begin, int64_t end) {
  if (entry.layout != Layout::plain) return write_matrices(lease, entry, data, begin, end);
  const size_t whole = static_cast<size_t>(element_count(entry.shape)) * itemsize(entry.dtype);
  const int64_t size = entry.shape.empty() ? 1 : entry.shape[0];
  if (whole == 0) return;
  const size_t step = whole / static_cast<size_t>(size);
  std::byte* to = entry.memory.data() + static_cast<size_t>(begin) * step;
  lease.run([&](int index, cpu::Barrier&) {
    const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
    const auto [first, last] = worker.share((end - begin) * static_cast<int64_t>(step), 4096);
    if (last > first) {
      std::memcpy(to + first, static_cast<const std::byte*>(data) + first, static_cast<size_t>(last - first));
    }
  });
}

void WeightStore::write_matrices(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data, int64_t begin,
                                 int64_t end) {
  const bool stack = entry.shape.size() == 3;
  const int64_t n = entry.n(), k = entry.k(), blocks = cpu::packed_blocks(n), count = stack ? end - begin : 1;
  const size_t source = static_cast<size_t>(n * k) * itemsize(entry.dtype);
  const size_t packed = cpu::packed_bytes(runtime_->isa(), entry.dtype, n, k);
  std::byte* to = entry.memory.data() + (stack ? static_cast<size_t>(begin) * packed : 0);
  lease.run([&](int index, cpu::Barrier&) {
    const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
    const auto [first, last] = worker.share(count * blocks);
    for (int64_t at = first; at < last;) {
      const int64_t matrix = at / blocks, block = at % blocks, stop = std::min(blocks, block + last - at);
      cpu::pack(runtime_->isa(), static_cast<const std::byte*>(data) + static_cast<size_t>(matrix) * source,
                entry.dtype, n, k, entry.layout == Layout::kn, to + static_cast<size_t>(matrix) * packed, block, stop);
      at += stop - block;
    }
  });
}

void WeightStore::write_all(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data) {
  entry.memory = Buffer(stored_bytes(entry));
  entry.parts = entry.shape.empty() ? 1 : entry.shape[0];
  write(lease, entry, data, 0, entry.parts);
}

// Returns the content of a packed weight as contiguous memory of the declared shape.
Buffer WeightStore::unpacked(const Entry& entry) {
  const cpu::PackedWeight packed = matrix(entry);
  const int64_t n = packed.n, k = packed.k;
  const size_t bytes = static_cast<size_t>(n * k) * itemsize(entry.dtype);
  Buffer result(static_cast<size_t>(packed.count) * bytes), rows(entry.layout == Layout::kn ? bytes : 0);
  std::vector<int64_t> all(static_cast<size_t>(n));
  std::iota(all.begin(), all.end(), int64_t{0});
  cpu::ErrorSlot errors;
  std::atomic<int64_t> ticket{0};
  const cpu::Worker alone{.ticket = &ticket, .error = &errors};
  for (int64_t i = 0; i < packed.count; ++i) {
    std::byte* out = result.data() + static_cast<size_t>(i) * bytes;
    std::byte* turned = entry.layout == Layout::kn ? rows.data() : out;
    cpu::gather_packed_rows(runtime_->isa(), packed.matrix(i), all.data(), DataType::i64, n, turned, alone);
    if (entry.layout != Layout::kn) continue;
    const TensorView from{rows.data(), entry.dtype, 2, {n, k}};
    constexpr int64_t kTurn[] = {1, 0};
    cpu::copy(cpu::transpose_plan(from, kTurn), from.data, out, alone);
  }
  return result;
}

void WeightStore::declare(const std::string& weight, DataType dtype, const std::vector<int64_t>& shape,
                          const std::vector<WeightUse>& uses) {
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  Entry& entry = entry_of(weight, dtype, shape);
  for (WeightUse use : uses) entry.uses[static_cast<size_t>(use)] = true;
  const Layout wanted = layout_for(entry);
  if (wanted == entry.layout) return;
  if (!entry.present) {  // parts in another layout cannot be used
    entry.clear();
    entry.layout = wanted;
    return;
  }
  Buffer plain = entry.layout == Layout::plain ? std::move(entry.memory) : unpacked(entry);
  entry.pieces.clear();
  entry.piece_memory.clear();
  entry.layout = wanted;
  if (wanted == Layout::plain) {
    entry.memory = std::move(plain);
  } else {
    write_all(lease, entry, plain.data());
  }
  ++generation_;
}

void WeightStore::set(const std::string& weight, const void* data, DataType dtype, const std::vector<int64_t>& shape) {
  if (element_count(shape) > 0 && data == nullptr) fail("weight '", weight, "' has no data");
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  Entry& entry = entry_of(weight, dtype, shape);
  entry.clear();
  entry.layout = Layout::plain;
  entry.layout = layout_for(entry);
  write_all(lease, entry, data);
  entry.present = true;
  ++generation_;
}

void WeightStore::set_part(const std::string& weight, int64_t begin, const void* data, DataType dtype,
                           const std::vector<int64_t>& shape, int64_t whole) {
  if (element_count(shape) > 0 && data == nullptr) fail("weight '", weight, "' has no data");
  if (shape.empty() || begin < 0 || shape[0] < 1 || shape[0] > whole - begin) {
    fail(shape_text(shape), " from ", begin, " on is no part of weight '", weight, "', which has ", whole, " rows");
  }
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  std::vector<int64_t> all = shape;
  all[0] = whole;
  Entry& entry = entry_of(weight, dtype, all);
  if (begin == 0) {
    entry.clear();
    entry.layout = Layout::plain;
  }
  const Layout layout = layout_for(entry);
  if (layout != Layout::plain && entry.shape.size() == 2 && shape != entry.shape) {
    fail("weight '", weight, "' is a matrix of a Linear, which is set as a whole");
  }
  if (begin == 0) {
    entry.layout = layout;
    entry.memory = Buffer(stored_bytes(entry));
    ++generation_;
  } else if (entry.present || begin != entry.parts) {
    fail("a part of weight '", weight, "' begins at ", begin, ", but the next one has to begin at ",
         entry.present ? 0 : entry.parts);
  }
  write(lease, entry, data, begin, begin + shape[0]);
  entry.parts = begin + shape[0];
  entry.present = entry.parts == entry.shape[0];
  if (entry.present) ++generation_;
}

// Returns the entry of a matrix that may be stored quantised, with layout `quantized`.
WeightStore::Entry& WeightStore::quantized_entry(const std::string& weight, DataType dtype,
                                                 const std::vector<int64_t>& shape) {
  if (shape.size() != 2 || !is_float(dtype)) {
    fail("weight '", weight, "' is ", name(dtype), shape_text(shape), "; only matrices of floats can be quantised");
  }
  Entry& entry = entry_of(weight, dtype, shape);
  const Layout before = entry.layout;
  entry.layout = Layout::quantized;
  if (layout_for(entry) == Layout::quantized) return entry;
  entry.layout = before;
  fail("weight '", weight, "' cannot be quantised: an op uses it otherwise than as the matrix [n, k] of a Linear");
}

void WeightStore::quantize(const std::string& weight, cpu::QuantFormat format, const void* data, DataType dtype,
                           const std::vector<int64_t>& shape) {
  if (format != cpu::QuantFormat::int8 && format != cpu::QuantFormat::int4) {
    fail("weight '", weight, "' cannot be quantised to ", cpu::name(format), ": only to int8 and int4");
  }
  if (element_count(shape) > 0 && data == nullptr) fail("weight '", weight, "' has no data");
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  Entry& entry = quantized_entry(weight, dtype, shape);
  entry.clear();
  ++generation_;
  const int64_t n = shape[0], k = shape[1];
  Buffer memory(cpu::quant_packed_bytes(format, n, k));
  std::atomic<bool> fits{true};
  lease.run([&](int index, cpu::Barrier&) {
    const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
    const auto [first, last] = worker.share(cpu::packed_blocks(n));
    if (!cpu::quantize_pack(format, data, dtype, n, k, memory.data(), first, last)) fits = false;
  });
  if (!fits) fail("weight '", weight, "' has values that are not finite, or too large for ", cpu::name(format));
  entry.pieces = {{.dtype = dtype, .n = n, .k = k, .data = memory.data(), .format = format}};
  entry.piece_memory.push_back(std::move(memory));
  entry.parts = n;
  entry.present = true;
}

// Packs rows, of which each thread reads as many at a time as stay in its cache; false if the file cannot be read.
bool WeightStore::pack_blocks(cpu::ThreadPool::Lease& lease, const Blocks& blocks, int64_t rows, int64_t k,
                              std::byte* to) {
  constexpr int64_t kPair = cpu::kPairBlocks * cpu::kBlockColumns;
  constexpr size_t kAtOnce = size_t{128} << 10;
  const size_t row_bytes = cpu::quant_row_bytes(blocks.format, k), pair_bytes = row_bytes * kPair;
  const size_t packed_pair = cpu::quant_packed_bytes(blocks.format, kPair, k);
  const size_t together = std::max<size_t>(1, kAtOnce / pair_bytes);
  const bool in_file = blocks.descriptor >= 0;
  const auto threads = static_cast<size_t>(runtime_->num_threads());
  const auto scratch = std::make_unique_for_overwrite<std::byte[]>(in_file ? threads * together * pair_bytes : 0);
  std::atomic<bool> read{true};
  lease.run([&](int index, cpu::Barrier&) {
    const cpu::Worker worker{.index = index, .count = runtime_->num_threads()};
    const auto [first, last] = worker.share((rows + kPair - 1) / kPair);
    std::byte* own = scratch.get() + static_cast<size_t>(index) * together * pair_bytes;
    for (int64_t pair = first; pair < last; pair += static_cast<int64_t>(together)) {
      const int64_t pairs = std::min(last - pair, static_cast<int64_t>(together));
      const int64_t count = std::min(pairs * kPair, rows - pair * kPair);
      const auto start = static_cast<size_t>(pair) * pair_bytes, bytes = static_cast<size_t>(count) * row_bytes;
      if (in_file && !read_file(blocks.descriptor, blocks.offset + static_cast<int64_t>(start), own, bytes)) {
        read = false;
        return;
      }
      std::byte* packed = to + static_cast<size_t>(pair) * packed_pair;
      cpu::quant_pack(blocks.format, in_file ? own : blocks.data + start, count, k, packed, 0,
                      pairs * cpu::kPairBlocks);
    }
  });
  return read;
}

bool WeightStore::set_blocks(const std::string& weight, int64_t begin, const Blocks& blocks, int64_t rows, int64_t k,
                             DataType dtype, int64_t whole) {
  const cpu::QuantFormat format = blocks.format;
  const cpu::QuantLayout layout = cpu::quant_layout(format);
  if (layout.block == 0) fail("weight '", weight, "': ", cpu::name(format), " has no blocks");
  if (rows < 1 || begin < 0 || rows > whole - begin || k < 1 || k % layout.block != 0 ||
      element_count({rows, k}) / k != rows ||
      blocks.bytes != static_cast<size_t>(rows) * cpu::quant_row_bytes(format, k)) {
    fail("weight '", weight, "': ", blocks.bytes, " bytes are not ", rows, " rows of ", k, " elements in ",
         cpu::name(format), " from ", begin, " on of ", whole);
  }
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  const Entry& before = entry_of(weight, dtype, {whole, k});
  const int64_t next = before.present || before.layout != Layout::quantized ? 0 : before.parts;
  if (begin != 0 && begin != next) {
    fail("a part of weight '", weight, "' begins at ", begin, ", but the next one has to begin at ", next);
  }
  Entry& entry = quantized_entry(weight, dtype, {whole, k});
  if (begin == 0) {
    entry.clear();
    ++generation_;
  }
  Buffer memory(cpu::quant_packed_bytes(format, rows, k));
  if (!pack_blocks(lease, blocks, rows, k, memory.data())) return false;
  entry.pieces.push_back({.dtype = dtype, .n = rows, .k = k, .data = memory.data(), .format = format});
  entry.piece_memory.push_back(std::move(memory));
  entry.parts = begin + rows;
  entry.present = entry.parts == whole;
  if (entry.present) ++generation_;
  return true;
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
  for (const auto& [weight, entry] : entries_) total += entry.bytes();
  return total;
}

size_t WeightStore::mapped_bytes() const {
  const std::lock_guard lock(mutex_);
  size_t total = 0;
  for (const auto& [weight, entry] : entries_) {
    if (entry.memory.is_mapped()) total += entry.memory.bytes();
    for (const Buffer& piece : entry.piece_memory) total += piece.is_mapped() ? piece.bytes() : 0;
  }
  return total;
}

WeightStore::Info WeightStore::info(const std::string& weight) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(weight);
  if (found == entries_.end() || !found->second.present) fail("weight '", weight, "' is not set");
  const Entry& entry = found->second;
  Info result{entry.dtype, entry.shape, entry.layout != Layout::plain, entry.bytes(), {}};
  for (const cpu::PackedWeight& piece : entry.pieces) result.formats.push_back(piece.format);
  return result;
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

}  // namespace atb_core
