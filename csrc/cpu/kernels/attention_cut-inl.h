// SPDX-License-Identifier: Apache-2.0
// What attention has to do, and how it is cut into units that threads take. The cut has no influence on the bits.
#pragma once

#include <algorithm>

#include "cpu/kernels/attention_tile-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Of queries of type T, and keys and values of type E.
template <typename T, typename E>
struct Job {
  Products products;
  const T* q;
  T* out;
  KeyValues<E> kv;  // of kv head 0 of sequence 0
  int64_t tokens, heads, kv_heads, batch;
  Weighing how;
  MaskRows mask_rows;
  bool causal = false;
  const int32_t* q_lens = nullptr;        // none: one token each
  const int32_t* context_lens = nullptr;  // none: as many as q_lens
  int64_t table_width = 0;

  int64_t group() const { return heads / kv_heads; }
  int64_t q_len(int64_t b) const { return q_lens != nullptr ? q_lens[b] : 1; }
  int64_t kv_len(int64_t b) const { return context_lens != nullptr ? context_lens[b] : q_lens[b]; }
};

// The cut of a Job: an item is (sequence, some kv heads, block of query tokens); with `tile_step`, a unit is some tiles
// of an item, otherwise all of them.
struct Cut {
  int64_t item_tokens, item_heads;
  int64_t tile_step = 0;   // 0: items are not split
  int64_t tile_limit = 0;  // tiles of the longest context: the distance of rows in the partial results
};

struct Unit {
  int64_t sequence;
  int64_t kv_head, heads;  // kv heads [kv_head, kv_head + heads)
  int64_t q_start;         // the first token of the sequence among all
  int64_t token, count;    // tokens of the item, from the sequence's first
  int64_t tile, tiles;     // tiles [tile, tiles)
};

template <typename T, typename E>
inline int64_t visible_to(const Job<T, E>& job, int64_t b, int64_t token) {
  const int64_t length = job.kv_len(b);
  if (!job.causal) return length;
  return std::max<int64_t>(0, length - job.q_len(b) + token + 1);
}

inline int64_t tiles_for(int64_t positions) { return (positions + kTile - 1) / kTile; }

// Iterates over the units in a fixed order, the tokens with the longest contexts first. `seek` only moves forward.
template <typename T, typename E>
class Units {
 public:
  Units(const Job<T, E>& job, const Cut& cut) : job_(job), cut_(cut) {}

  // Returns false if there is no unit of this number.
  bool seek(int64_t number, Unit& unit) {
    while (sequence_ < job_.batch) {
      const int64_t n = job_.q_len(sequence_);
      while (block_ < (n + cut_.item_tokens - 1) / cut_.item_tokens) {
        set_item(n, unit);
        const int64_t pieces =
            cut_.tile_step == 0 ? 1 : std::max<int64_t>(1, (unit.tiles + cut_.tile_step - 1) / cut_.tile_step);
        const int64_t units = pieces * ((job_.kv_heads + cut_.item_heads - 1) / cut_.item_heads);
        const int64_t index = number - first_;
        if (index < units) {
          unit.kv_head = index / pieces * cut_.item_heads;
          unit.heads = std::min(cut_.item_heads, job_.kv_heads - unit.kv_head);
          if (pieces > 1) {
            unit.tile = index % pieces * cut_.tile_step;
            unit.tiles = std::min(unit.tiles, unit.tile + cut_.tile_step);
          }
          return true;
        }
        first_ += units;
        ++block_;
      }
      q_start_ += n;
      block_ = 0;
      ++sequence_;
    }
    return false;
  }

 private:
  void set_item(int64_t n, Unit& unit) const {
    const int64_t end = n - block_ * cut_.item_tokens;
    unit.sequence = sequence_;
    unit.q_start = q_start_;
    unit.token = std::max<int64_t>(0, end - cut_.item_tokens);
    unit.count = end - unit.token;
    unit.tile = 0;
    unit.tiles = tiles_for(visible_to(job_, sequence_, end - 1));
  }

  const Job<T, E>& job_;
  const Cut& cut_;
  int64_t sequence_ = 0, block_ = 0, q_start_ = 0;
  int64_t first_ = 0;  // the number of the current item's first unit
};

// Checks the lengths; every thread reads the same ones and gets the same result.
template <typename T, typename E>
inline bool lengths_are_good(const Job<T, E>& job, int64_t capacity, const Worker& worker) {
  int64_t tokens = 0, longest_q = 0, longest_kv = 0;
  for (int64_t b = 0; b < job.batch; ++b) {
    const int64_t n = job.q_len(b), kv = job.kv_len(b);
    if (n < 0 || n > job.tokens)
      return worker.error->report("sequence length is out of range", b, n, job.tokens), false;
    if (kv < 0 || kv > capacity) return worker.error->report("context length is out of range", b, kv, capacity), false;
    if (kv != 0 && kv < n)
      return worker.error->report("context is shorter than the new tokens it counts", b, kv, n), false;
    tokens += n;
    longest_q = std::max(longest_q, n);
    longest_kv = std::max(longest_kv, kv);
  }
  if (tokens != job.tokens)
    return worker.error->report("sequence lengths do not add up to the number of tokens", job.batch, tokens,
                                job.tokens),
           false;
  const MaskView& mask = job.how.mask;
  if (mask.data != nullptr && longest_kv > mask.width)
    return worker.error->report("mask has fewer columns than the longest context", 0, mask.width, longest_kv), false;
  return true;
}

// Returns how many kv heads an item may have: as many as its memory has rows for, and as the second level of cache holds
// of two tiles of them. A cache is read in ascending order if an item has all heads.
template <typename T, typename E>
inline int64_t most_heads(const Job<T, E>& job, int64_t item_tokens) {
  const int64_t rows = (item_tokens * job.group() + kRowUnit - 1) / kRowUnit * kRowUnit;
  const int64_t bytes = kTile * (job.kv.d + job.kv.dv) * static_cast<int64_t>(sizeof(E));
  return std::clamp<int64_t>(std::min(kItemRows / rows, kTileBytes / bytes), 1, job.kv_heads);
}

// Returns into how many blocks a sequence's tokens are cut: as few as give all threads the same work, because the keys and
// values are read for each block: with four rounds of items, 16 tokens behind 8,192 took twice as long.
inline int64_t token_blocks(int64_t kv_heads, int64_t threads) {
  for (int64_t rounds = 1;; ++rounds) {
    const int64_t blocks = (rounds * threads + kv_heads - 1) / kv_heads, items = blocks * kv_heads;
    if (rounds == 4 || 8 * ((items + threads - 1) / threads) * threads <= 9 * items) return blocks;
  }
}

// Chooses the cut. With few long items for many threads, or one that is much longer than others, such as a prompt beside
// sequences that decode, tiles are shared if there is memory for the partial results.
template <typename T, typename E>
inline Cut cut_job(const Job<T, E>& job, const Worker& worker) {
  const int64_t threads = worker.count;
  int64_t longest_q = 1;
  for (int64_t b = 0; b < job.batch; ++b) longest_q = std::max(longest_q, job.q_len(b));
  const int64_t blocks = token_blocks(job.kv_heads, threads), fair = (longest_q + blocks - 1) / blocks;
  // Several register blocks an item, even if that leaves fewer items than would balance best.
  const int64_t least = std::max<int64_t>(1, 12 / job.group()), most = std::max<int64_t>(1, kItemRows / job.group());
  const int64_t item_tokens = std::clamp(fair, std::min(least, most), most), heads = most_heads(job, item_tokens);
  Cut cut{item_tokens, heads};
  if (threads == 1) return cut;
  int64_t items = 0, total = 0, longest = 0;  // of one head each
  for (int64_t b = 0; b < job.batch; ++b) {
    const int64_t n = (job.q_len(b) + cut.item_tokens - 1) / cut.item_tokens;
    const int64_t tiles = tiles_for(job.kv_len(b));
    items += n * job.kv_heads;
    total += n * job.kv_heads * tiles;
    longest = std::max(longest, tiles);
  }
  // Returns true if no thread has to do much more than its share when items have so many heads, even if all are as long as
  // the longest, or a thread takes that one last.
  const auto is_fair = [&](int64_t item_heads) {
    const int64_t item = item_heads * longest;
    const int64_t units = items / job.kv_heads * ((job.kv_heads + item_heads - 1) / item_heads);
    const int64_t makespan = std::min((units + threads - 1) / threads * item, (total + (threads - 1) * item) / threads);
    return 8 * makespan * threads <= 9 * total;
  };
  // The longest item is at most half of what a thread has to do.
  cut.item_heads = std::clamp<int64_t>(total / std::max<int64_t>(1, 2 * threads * longest), 1, heads);
  if (!is_fair(cut.item_heads)) cut.item_heads = 1;
  const size_t bytes = static_cast<size_t>(job.tokens * job.heads * longest * partial_size(job.kv.dv)) * sizeof(float);
  if (total < 4 * threads || is_fair(cut.item_heads) || bytes > worker.shared_bytes) return cut;
  cut.item_heads = heads;
  cut.tile_step = std::max<int64_t>(1, total / (4 * threads * heads));
  cut.tile_limit = longest;
  return cut;
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
