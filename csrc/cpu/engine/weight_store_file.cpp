// SPDX-License-Identifier: Apache-2.0
// Packed weights in files: WeightStore::save() and load().
#include "atb_core/error.h"
#include "cpu/engine/packed_file.h"
#include "cpu/engine/weight_store.h"

namespace atb_core {

bool WeightStore::save(int descriptor, const std::string& key, const std::function<bool()>& interrupted) const {
  const std::lock_guard lock(mutex_);
  std::vector<StoredWeight> weights;
  for (const auto& [weight, entry] : entries_) {
    if (!entry.present) continue;
    StoredWeight stored{weight, entry.dtype, static_cast<uint8_t>(entry.layout), entry.shape, {}};
    if (entry.layout != Layout::quantized) {
      stored.pieces.push_back({cpu::QuantFormat::none, 0, 0, entry.memory.data(), entry.memory.bytes()});
    }
    for (size_t i = 0; i < entry.pieces.size(); ++i) {
      const cpu::PackedWeight& piece = entry.pieces[i];
      stored.pieces.push_back({piece.format, piece.n, piece.k, piece.data, entry.piece_memory[i].bytes()});
    }
    weights.push_back(std::move(stored));
  }
  return write_packed(descriptor, key, std::move(weights), interrupted);
}

// Returns the content of a declared weight as a file has it.
WeightStore::Entry WeightStore::mapped(const StoredWeight& stored, const Entry& declared,
                                       const std::shared_ptr<const FileMapping>& file) const {
  const auto refuse = [&] { fail("its weight '", stored.name, "' is not the one that the model has"); };
  Entry entry;
  entry.dtype = declared.dtype;
  entry.shape = declared.shape;
  entry.uses = declared.uses;
  entry.layout = static_cast<Layout>(stored.layout);
  if (stored.dtype != entry.dtype || stored.shape != entry.shape || layout_for(entry) != entry.layout) refuse();
  if (entry.layout != Layout::quantized) {
    if (stored.pieces.size() != 1 || stored.pieces.front().bytes != stored_bytes(entry)) refuse();
    entry.memory = Buffer(file, stored.pieces.front().offset, stored.pieces.front().bytes);
  } else {
    if (entry.shape.size() != 2) refuse();
    int64_t rows = 0;
    for (const StoredWeight::Piece& piece : stored.pieces) {
      if (piece.format == cpu::QuantFormat::none || piece.format > cpu::QuantFormat::iq4_nl || piece.n < 1 ||
          piece.n > entry.shape[0] - rows || piece.k != entry.shape[1] ||
          piece.bytes != cpu::quant_packed_bytes(piece.format, piece.n, piece.k)) {
        refuse();
      }
      rows += piece.n;
      entry.pieces.push_back(
          {.dtype = entry.dtype, .n = piece.n, .k = piece.k, .data = piece.data, .format = piece.format});
      entry.piece_memory.emplace_back(file, piece.offset, piece.bytes);
    }
    if (rows != entry.shape[0] || rows == 0) refuse();
  }
  entry.parts = entry.shape.empty() ? 1 : entry.shape[0];
  entry.present = true;
  return entry;
}

bool WeightStore::load(int descriptor, size_t bytes, const std::string& key) {
  const auto file = std::make_shared<const FileMapping>(descriptor, bytes);
  const auto weights = read_packed(*file, key);
  if (!weights) return false;
  auto lease = runtime_->pool().lease();
  const std::lock_guard lock(mutex_);
  std::map<std::string, Entry> loaded;
  for (const StoredWeight& weight : *weights) {
    const auto declared = entries_.find(weight.name);
    if (declared == entries_.end()) fail("it has a weight '", weight.name, "', which the model does not have");
    loaded.insert_or_assign(weight.name, mapped(weight, declared->second, file));
  }
  for (const auto& [weight, entry] : entries_) {
    if (!loaded.contains(weight)) fail("it has no weight '", weight, "'");
  }
  entries_ = std::move(loaded);
  ++generation_;
  return true;
}

}  // namespace atb_core
