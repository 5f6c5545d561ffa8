// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/packed_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <span>

#include "atb_core/error.h"
#include "cpu/kernels/linear_kernel.h"

#if defined(__linux__)
#include <fcntl.h>
#include <unistd.h>
#endif

namespace atb_core {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "ATBPACK\n";
// Goes up with every change of this format or of a packed layout.
constexpr uint32_t kVersion = 2;
constexpr size_t kChunk = size_t{16} << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t weights;
  uint64_t file_bytes;
  uint64_t table_bytes;
  uint64_t checksum;  // of the header with a 0 here, and of the table
  char key[kPackedKeyBytes];
};

// FNV-1a.
uint64_t hash(uint64_t state, const void* data, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < bytes; ++i) state = (state ^ at[i]) * 0x100000001b3U;
  return state;
}

uint64_t checksum(Header header, std::span<const std::byte> table) {
  header.checksum = 0;
  return hash(hash(0xcbf29ce484222325U, &header, sizeof(header)), table.data(), table.size());
}

class TableWriter {
 public:
  template <typename T>
  void put(T value) {
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), raw, raw + sizeof(T));
  }
  void put(const StoredWeight& weight) {
    put(static_cast<uint32_t>(weight.name.size()));
    for (char c : weight.name) put(c);
    put(weight.dtype);
    put(weight.layout);
    put(static_cast<uint32_t>(weight.shape.size()));
    for (int64_t size : weight.shape) put(size);
    put(static_cast<uint32_t>(weight.pieces.size()));
    for (const StoredWeight::Piece& piece : weight.pieces) {
      put(piece.format);
      put(piece.n);
      put(piece.k);
      put(piece.offset);
      put(piece.bytes);
    }
  }

  std::vector<std::byte> bytes;
};

[[noreturn]] void damaged() { fail("its table is damaged"); }

class TableReader {
 public:
  TableReader(const FileMapping& file, std::span<const std::byte> table) : file_(file), rest_(table) {}

  StoredWeight weight() {
    StoredWeight result;
    result.name.resize(count(1));
    for (char& c : result.name) c = take<char>();
    result.dtype = take<DataType>();
    result.layout = take<uint8_t>();
    result.shape.resize(count(sizeof(int64_t)));
    for (int64_t& size : result.shape) size = take<int64_t>();
    result.pieces.resize(count(sizeof(int64_t)));
    for (StoredWeight::Piece& piece : result.pieces) {
      piece.format = take<cpu::QuantFormat>();
      piece.n = take<int64_t>();
      piece.k = take<int64_t>();
      piece.offset = take<uint64_t>();
      piece.bytes = take<uint64_t>();
      if (piece.offset % kAlignment != 0 || piece.offset > file_.bytes() ||
          piece.bytes > file_.bytes() - piece.offset) {
        damaged();
      }
      piece.data = file_.data() + piece.offset;
    }
    return result;
  }
  bool at_end() const { return rest_.empty(); }

 private:
  template <typename T>
  T take() {
    if (rest_.size() < sizeof(T)) damaged();
    T value;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  // The number of items of at least this size that follow; more than there can be are refused before they get memory.
  size_t count(size_t item) {
    const auto number = take<uint32_t>();
    if (number > rest_.size() / item) damaged();
    return number;
  }

  const FileMapping& file_;
  std::span<const std::byte> rest_;
};

#if defined(__linux__)

[[noreturn]] void not_written(int error) { fail("it cannot be written: ", std::strerror(error)); }

void allocate(int descriptor, uint64_t bytes) {
  // A full disk is found before anything is written.
  const int error = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes));
  if (error != 0 && error != EOPNOTSUPP && error != EINVAL) not_written(error);
  if (ftruncate(descriptor, static_cast<off_t>(bytes)) != 0) not_written(errno);
}

bool write_at(int descriptor, uint64_t offset, const void* data, uint64_t bytes,
              const std::function<bool()>& interrupted) {
  const auto* from = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t done = pwrite(descriptor, from, std::min<uint64_t>(bytes, kChunk), static_cast<off_t>(offset));
    if (done < 0 && errno != EINTR) not_written(errno);
    if (interrupted()) return false;
    if (done <= 0) continue;
    from += done;
    offset += static_cast<uint64_t>(done);
    bytes -= static_cast<uint64_t>(done);
  }
  return true;
}

#else

void allocate(int, uint64_t) { fail("files of packed weights are not written on this system"); }
bool write_at(int, uint64_t, const void*, uint64_t, const std::function<bool()>&) { return false; }

#endif

}  // namespace

std::string_view packed_layout(cpu::Isa isa) {
  if (cpu::integer_zero(isa) == 0) return "tiles";
  return cpu::has_chain_layout(isa, DataType::bf16) ? "chains" : "pairs";
}

bool write_packed(int descriptor, const std::string& key, std::vector<StoredWeight> weights,
                  const std::function<bool()>& interrupted) {
  if (key.size() > kPackedKeyBytes) fail("a key of ", key.size(), " bytes is too long");
  TableWriter sized;
  for (const StoredWeight& weight : weights) sized.put(weight);
  uint64_t end = align_up(sizeof(Header) + sized.bytes.size());
  for (StoredWeight& weight : weights) {
    for (StoredWeight::Piece& piece : weight.pieces) {
      piece.offset = end;
      end = align_up(end + piece.bytes);
    }
  }
  TableWriter table;
  for (const StoredWeight& weight : weights) table.put(weight);
  Header header{};
  header.version = kVersion;
  header.weights = static_cast<uint32_t>(weights.size());
  header.file_bytes = end;
  header.table_bytes = table.bytes.size();
  std::memcpy(header.magic, kMagic.data(), kMagic.size());
  std::memcpy(header.key, key.data(), key.size());
  header.checksum = checksum(header, table.bytes);

  allocate(descriptor, end);
  for (const StoredWeight& weight : weights) {
    for (const StoredWeight::Piece& piece : weight.pieces) {
      if (!write_at(descriptor, piece.offset, piece.data, piece.bytes, interrupted)) return false;
    }
  }
  return write_at(descriptor, sizeof(Header), table.bytes.data(), table.bytes.size(), interrupted) &&
         write_at(descriptor, 0, &header, sizeof(Header), interrupted);
}

std::optional<std::vector<StoredWeight>> read_packed(const FileMapping& file, const std::string& key) {
  Header header;
  if (file.bytes() < sizeof(header)) fail("it is too short");
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic.data(), kMagic.size()) != 0) fail("it is no file of packed weights");
  if (header.version != kVersion) return {};
  if (header.file_bytes != file.bytes()) {
    fail("it has ", file.bytes(), " bytes and was written with ", header.file_bytes);
  }
  if (header.table_bytes > file.bytes() - sizeof(header)) damaged();
  const std::span table(file.data() + sizeof(header), header.table_bytes);
  if (checksum(header, table) != header.checksum) damaged();
  char wanted[kPackedKeyBytes] = {};
  std::memcpy(wanted, key.data(), std::min(key.size(), kPackedKeyBytes));
  if (std::memcmp(wanted, header.key, kPackedKeyBytes) != 0) return {};
  TableReader reader(file, table);
  std::vector<StoredWeight> weights;
  for (uint32_t i = 0; i < header.weights; ++i) weights.push_back(reader.weight());
  if (!reader.at_end()) damaged();
  return weights;
}

}  // namespace atb_core
