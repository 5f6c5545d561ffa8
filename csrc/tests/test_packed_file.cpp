// SPDX-License-Identifier: Apache-2.0
// A file is written once and then mapped by whoever finds it: what it says of itself is not believed.
#include "cpu/engine/packed_file.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "atb_core/error.h"
#include "check.h"

using namespace atb_core;

namespace {

const std::string kKey = "key";

struct File {
  std::FILE* file = std::tmpfile();
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { std::fclose(file); }
  int descriptor() const { return fileno(file); }
  size_t bytes() const { return static_cast<size_t>(lseek(descriptor(), 0, SEEK_END)); }
  FileMapping map() const { return FileMapping(descriptor(), bytes()); }
};

// Two weights, one of them in two quantised pieces.
void write(const File& file) {
  static const std::vector<std::byte> plain(1000, std::byte{1}), first(300, std::byte{2}), second(77, std::byte{3});
  std::vector<StoredWeight> weights(2);
  weights[0] = {"a.weight", DataType::f32, 0, {10, 25}, {{cpu::QuantFormat::none, 0, 0, plain.data(), plain.size()}}};
  weights[1] = {"b.weight",
                DataType::bf16,
                1,
                {64, 32},
                {{cpu::QuantFormat::q4_0, 32, 32, first.data(), first.size()},
                 {cpu::QuantFormat::q8_0, 32, 32, second.data(), second.size()}}};
  CHECK(write_packed(file.descriptor(), kKey, weights, [] { return false; }));
}

// Reads every byte that the weights of a file have.
size_t touch(const std::vector<StoredWeight>& weights) {
  size_t sum = 0;
  for (const StoredWeight& weight : weights) {
    for (const StoredWeight::Piece& piece : weight.pieces) {
      for (uint64_t i = 0; i < piece.bytes; ++i) sum += static_cast<size_t>(piece.data[i]);
    }
  }
  return sum;
}

// Returns how often a change made the file unreadable; what is read all the same lies within it.
template <typename Change>
int refused(Change change) {
  int count = 0;
  const File original;
  write(original);
  std::vector<char> content(original.bytes());
  CHECK(pread(original.descriptor(), content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  for (size_t at = 0; at < content.size(); ++at) {
    std::vector<char> changed = content;
    change(changed, at);
    if (changed.empty()) continue;
    const File file;
    CHECK(pwrite(file.descriptor(), changed.data(), changed.size(), 0) == static_cast<ssize_t>(changed.size()));
    const FileMapping mapping = file.map();
    try {
      const auto weights = read_packed(mapping, kKey);
      if (weights) touch(*weights);
      count += weights ? 0 : 1;
    } catch (const Error&) {
      ++count;
    }
  }
  return count;
}

}  // namespace

TEST(what_was_written_is_read) {
  const File file;
  write(file);
  const FileMapping mapping = file.map();
  const auto weights = read_packed(mapping, kKey);
  CHECK(weights.has_value());
  if (!weights) return;
  CHECK(weights->size() == 2);
  CHECK(touch(*weights) == 1000 + 2 * 300 + 3 * 77);
  for (const StoredWeight& weight : *weights) {
    CHECK(weight.name == "a.weight" || weight.name == "b.weight");
    for (const StoredWeight::Piece& piece : weight.pieces) CHECK(piece.offset % kAlignment == 0);
  }
}

TEST(another_key_finds_nothing) {
  const File file;
  write(file);
  const FileMapping mapping = file.map();
  CHECK(!read_packed(mapping, "kez").has_value());
  CHECK(!read_packed(mapping, "").has_value());
}

TEST(an_interrupted_file_is_not_one) {
  const File file;
  CHECK(!write_packed(file.descriptor(), kKey,
                      {{"w", DataType::f32, 0, {1}, {{cpu::QuantFormat::none, 0, 0, nullptr, 0}}}},
                      [] { return true; }));
}

TEST(a_file_that_was_cut_is_refused) {
  CHECK(refused([](std::vector<char>& content, size_t at) { content.resize(at); }) > 1000);
}

TEST(a_damaged_file_is_refused_or_stays_within_itself) {
  for (const char bits : {'\x01', '\x80', '\xff'}) {
    CHECK(refused([&](std::vector<char>& content, size_t at) { content[at] = static_cast<char>(content[at] ^ bits); }) >
          20);
  }
}

TEST_MAIN()
