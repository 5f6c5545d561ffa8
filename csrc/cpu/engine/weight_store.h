// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atb_core/fork_safe_mutex.h"
#include "cpu/engine/memory.h"
#include "cpu/engine/op.h"
#include "cpu/engine/runtime.h"
#include "cpu/kernels/linear.h"

namespace atb_core {

struct StoredWeight;

// The weights of one model, shared by all its programs: one resident copy of each, in a layout that serves all its
// uses. Programs declare how they use a weight before or after it is set; a weight that is already set changes its
// layout if needed. No weight changes while a program of the same runtime runs.
class WeightStore {
 public:
  explicit WeightStore(std::shared_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

  const std::shared_ptr<Runtime>& runtime() const { return runtime_; }

  // Declares that a program uses a weight in these ways. Throws Error if another program or the weight itself has
  // another shape or type.
  void declare(const std::string& name, DataType dtype, const std::vector<int64_t>& shape,
               const std::vector<WeightUse>& uses);

  // Copies (or packs) a contiguous tensor; `data` is not needed afterwards. A weight may be set again.
  void set(const std::string& name, const void* data, DataType dtype, const std::vector<int64_t>& shape);

  // Sets the part [begin, begin + shape[0]) of a first dimension of `whole`, so that a weight need not be in one piece.
  // Parts come in ascending order without gaps; a part that begins at 0 starts again. The weight is set with its last
  // part. A matrix of a Linear can only be set as a whole.
  void set_part(const std::string& name, int64_t begin, const void* data, DataType dtype,
                const std::vector<int64_t>& shape, int64_t whole);

  // Sets the matrix `name` [n, k] of a Linear, quantised from contiguous floats to one of the formats int8 and int4.
  // Throws Error if it cannot be stored so: it has another shape, or other uses than as a matrix and by rows.
  void quantize(const std::string& name, cpu::QuantFormat format, const void* data, DataType dtype,
                const std::vector<int64_t>& shape);

  // Blocks of a format, as a file has them: in memory or, with a descriptor, from byte `offset` of the file on.
  struct Blocks {
    cpu::QuantFormat format;
    size_t bytes;
    const std::byte* data;
    int descriptor = -1;
    int64_t offset = 0;
  };

  // Sets rows [begin, begin + rows) of such a matrix of `whole` rows of k elements from blocks; parts may have different
  // formats and come as those of set_part() do. `dtype` is that of the weight. Returns false if the file cannot be read:
  // these rows are then still to be set.
  bool set_blocks(const std::string& name, int64_t begin, const Blocks& blocks, int64_t rows, int64_t k, DataType dtype,
                  int64_t whole);

  // Writes all weights that are set, as they are packed, to an empty file; `key` (at most 64 bytes) says from what
  // they were made. Returns false if `interrupted` did, which is asked now and then. Throws Error if writing fails.
  bool save(int descriptor, const std::string& key, const std::function<bool()>& interrupted) const;

  // Maps a file of so many bytes that save() wrote, instead of setting each declared weight. It must not change while
  // it is mapped. Returns false, and changes nothing, if it has another key or was written by another version. Throws
  // Error if it is damaged, or has other weights or layouts than those declared.
  bool load(int descriptor, size_t bytes, const std::string& key);

  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;
  size_t bytes() const;
  // Of them, those in mapped files, which the system may drop and read again.
  size_t mapped_bytes() const;

  struct Info {
    DataType dtype;
    std::vector<int64_t> shape;
    bool packed;
    size_t bytes;
    std::vector<cpu::QuantFormat> formats;  // of the pieces of a quantised matrix
  };
  // Throws Error if there is no such weight.
  Info info(const std::string& name) const;

  // The memory that a plan binds to. Valid until the generation changes; null data if the weight is not set.
  struct Ref {
    const std::byte* data = nullptr;  // plain
    bool packed = false;
    cpu::PackedWeight matrix = {};
  };
  Ref ref(const std::string& name) const;

  // Returns a number that changes when a Ref may have become invalid.
  uint64_t generation() const;

 private:
  enum class Layout { plain, nk, kn, quantized };
  struct Entry {
    DataType dtype;
    std::vector<int64_t> shape;
    std::vector<bool> uses = std::vector<bool>(4);  // by WeightUse
    Layout layout = Layout::plain;
    Buffer memory;
    // Of a quantised matrix: its pieces and their memory, instead of `memory`.
    std::vector<cpu::PackedWeight> pieces;
    std::vector<Buffer> piece_memory;
    int64_t parts = 0;  // parts of the first dimension that are set
    bool present = false;

    // The sizes of the matrices in the last two dimensions.
    int64_t n() const { return shape[shape.size() - (layout == Layout::kn ? 1 : 2)]; }
    int64_t k() const { return shape[shape.size() - (layout == Layout::kn ? 2 : 1)]; }
    int64_t matrices() const { return shape.size() == 3 ? shape[0] : 1; }
    size_t bytes() const;
    // Drops the content.
    void clear();
  };

  static Layout layout_for(const Entry& entry);
  size_t stored_bytes(const Entry& entry) const;
  Entry mapped(const StoredWeight& stored, const Entry& declared, const std::shared_ptr<const FileMapping>& file) const;
  void write(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data, int64_t begin, int64_t end);
  void write_matrices(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data, int64_t begin, int64_t end);
  bool pack_blocks(cpu::ThreadPool::Lease& lease, const Blocks& blocks, int64_t rows, int64_t k, std::byte* to);
  void write_all(cpu::ThreadPool::Lease& lease, Entry& entry, const void* data);
  Entry& quantized_entry(const std::string& name, DataType dtype, const std::vector<int64_t>& shape);
  Buffer unpacked(const Entry& entry);
  static cpu::PackedWeight matrix(const Entry& entry);
  Entry& entry_of(const std::string& name, DataType dtype, const std::vector<int64_t>& shape);

  std::shared_ptr<Runtime> runtime_;
  // Taken after the pool's lease, never before it.
  mutable ForkSafeMutex mutex_;
  std::map<std::string, Entry> entries_;
  uint64_t generation_ = 1;
};

}  // namespace atb_core
