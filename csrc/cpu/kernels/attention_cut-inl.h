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

// Some kv heads of a sequence, and how its tokens are cut for them.
struct Part {
  int64_t first, heads;  // kv heads [first, first + heads)
  int64_t item_heads, item_tokens;
  int64_t first_tiles = 0, tile_step = 0;  // tiles of the first unit of an item, and of others; 0: items are not split

  int64_t blocks(int64_t tokens) const { return (tokens + item_tokens - 1) / item_tokens; }
  int64_t pieces(int64_t tiles) const {
    return tile_step == 0 || tiles <= first_tiles ? 1 : 1 + (tiles - first_tiles + tile_step - 1) / tile_step;
  }
  int64_t groups(int64_t of_heads) const { return (heads + of_heads - 1) / of_heads; }
};

// The cut of a Job: an item is (sequence, some kv heads of a part, block of query tokens); with `tile_step`, a unit is
// some tiles of an item, otherwise all of them. As many heads as all threads can have the same number of are the first
// part. Those of the second part have smaller blocks of tokens, or are split, so that each thread gets some of them.
struct Cut {
  Part parts[2];
  int64_t longest = 0;  // tiles; the distance of rows in the partial results

  // Returns the part of a kv head.
  const Part& part_of(int64_t kv_head) const { return parts[kv_head < parts[0].heads ? 0 : 1]; }
  bool splits() const { return parts[0].tile_step + parts[1].tile_step > 0; }

  // Returns true if a context is to begin before others.
  bool is_long(int64_t tiles) const { return 2 * tiles > longest; }
};

struct Unit {
  int64_t sequence;
  int64_t kv_head, heads;  // kv heads [kv_head, kv_head + heads)
  int64_t q_start;         // the first token of the sequence among all
  int64_t token, count;    // tokens of the item, from the sequence's first
  int64_t tile, tiles;     // tiles [tile, tiles)
  bool split;              // true: of an item that is split
};

template <typename T, typename E>
inline int64_t visible_to(const Job<T, E>& job, int64_t b, int64_t token) {
  const int64_t length = job.kv_len(b);
  if (!job.causal) return length;
  return std::max<int64_t>(0, length - job.q_len(b) + token + 1);
}

inline int64_t tiles_for(int64_t positions) { return (positions + kTile - 1) / kTile; }

// Iterates over the units in a fixed order: those of long contexts first, so that short ones level out what threads have
// to do, and of a sequence the tokens with the longest contexts first. `seek` only moves forward.
template <typename T, typename E>
class Units {
 public:
  Units(const Job<T, E>& job, const Cut& cut) : job_(job), cut_(cut) {}

  // Returns false if there is no unit of this number.
  bool seek(int64_t number, Unit& unit) {
    for (; round_ < 2; ++round_, sequence_ = q_start_ = 0) {
      for (; sequence_ < job_.batch; q_start_ += job_.q_len(sequence_++), part_ = 0) {
        if (cut_.is_long(tiles_for(job_.kv_len(sequence_))) != (round_ == 0)) continue;
        for (; part_ < 2; ++part_, block_ = 0)
          if (find_in_part(cut_.parts[part_], number, unit)) return true;
      }
    }
    return false;
  }

 private:
  bool find_in_part(const Part& part, int64_t number, Unit& unit) {
    if (part.heads == 0) return false;
    const int64_t n = job_.q_len(sequence_);
    for (; block_ < part.blocks(n); ++block_) {
      set_item(part, n, unit);
      const int64_t pieces = part.pieces(unit.tiles);
      const int64_t units = pieces * part.groups(part.item_heads), index = number - first_;
      if (index >= units) {
        first_ += units;
        continue;
      }
      const int64_t head = index / pieces * part.item_heads;
      unit.kv_head = part.first + head;
      unit.heads = std::min(part.item_heads, part.heads - head);
      unit.split = part.tile_step > 0;
      const int64_t piece = index % pieces;
      if (piece > 0) unit.tile = part.first_tiles + (piece - 1) * part.tile_step;
      if (pieces > 1) unit.tiles = std::min(unit.tiles, part.first_tiles + piece * part.tile_step);
      return true;
    }
    return false;
  }

  void set_item(const Part& part, int64_t n, Unit& unit) const {
    const int64_t end = n - block_ * part.item_tokens;
    unit.sequence = sequence_;
    unit.q_start = q_start_;
    unit.token = std::max<int64_t>(0, end - part.item_tokens);
    unit.count = end - unit.token;
    unit.tile = 0;
    unit.tiles = tiles_for(visible_to(job_, sequence_, end - 1));
  }

  const Job<T, E>& job_;
  const Cut& cut_;
  int64_t round_ = 0, sequence_ = 0, q_start_ = 0, part_ = 0, block_ = 0;
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

// What the items of one head each are to do, in tiles.
struct Work {
  int64_t total = 0;
  int64_t shorter = 0;             // the longest of contexts that are not long
  int64_t whole = 0, smaller = 0;  // items of a head of each part with long contexts
};

template <typename T, typename E>
inline Work work_of(const Job<T, E>& job, const Cut& cut) {
  Work work;
  for (int64_t b = 0; b < job.batch; ++b) {
    const int64_t tiles = tiles_for(job.kv_len(b));
    const int64_t whole = cut.parts[0].blocks(job.q_len(b)), smaller = cut.parts[1].blocks(job.q_len(b));
    work.total += tiles * (whole * cut.parts[0].heads + smaller * cut.parts[1].heads);
    if (cut.is_long(tiles)) {
      work.whole += whole;
      work.smaller += smaller;
    } else {
      work.shorter = std::max(work.shorter, tiles);
    }
  }
  return work;
}

// Chooses how many heads, at most `heads`, the items of a cut have. Returns true if no thread has to do much more than its
// share then, even if all items are as long as the longest, or a thread takes that one last.
inline bool share_heads(Cut& cut, const Work& work, int64_t heads, int64_t threads) {
  const auto is_fair = [&](int64_t item_heads) {
    const int64_t item = item_heads * cut.longest;
    const int64_t units = work.whole * cut.parts[0].groups(item_heads) + work.smaller * cut.parts[1].groups(item_heads);
    const auto last = [&](int64_t each) { return (work.total + (threads - 1) * each) / threads; };
    const int64_t makespan =
        std::min(last(item), std::max((units + threads - 1) / threads * item, last(item_heads * work.shorter)));
    return 8 * makespan * threads <= 9 * work.total;
  };
  // The longest item is at most half of what a thread has to do.
  int64_t item_heads = std::clamp<int64_t>(work.total / std::max<int64_t>(1, 2 * threads * cut.longest), 1, heads);
  if (!is_fair(item_heads)) item_heads = 1;
  for (Part& part : cut.parts) part.item_heads = item_heads;
  return is_fair(item_heads);
}

// Cuts the heads of the second part, or all if there is no first one, into some tiles a unit: a quarter of what a thread
// has to do of them. The first unit of an item is larger, because it needs no partial results: up to half of the item.
inline void split_tiles(Cut& cut, const Work& work, int64_t kv_heads, int64_t threads) {
  Part& part = cut.parts[cut.parts[0].heads > 0 && cut.parts[1].heads > 0 ? 1 : 0];
  part.tile_step = std::max<int64_t>(1, work.total * part.heads / (4 * threads * part.item_heads * kv_heads));
  part.first_tiles = std::max(part.tile_step, std::min(4 * part.tile_step, cut.longest / 2));
}

// Chooses the cut. If threads cannot have the same number of heads, those that are left over are cut into smaller blocks
// of tokens; with too few rows for that, which would be read again for each block, tiles are shared if there is memory for
// the partial results.
template <typename T, typename E>
inline Cut cut_job(const Job<T, E>& job, const Worker& worker) {
  const int64_t threads = worker.count;
  int64_t longest_q = 1;
  Cut whole;
  for (int64_t b = 0; b < job.batch; ++b) {
    longest_q = std::max(longest_q, job.q_len(b));
    whole.longest = std::max(whole.longest, tiles_for(job.kv_len(b)));
  }
  const int64_t most = std::max<int64_t>(1, kItemRows / job.group()), tokens = std::min(longest_q, most);
  const int64_t heads = most_heads(job, tokens), rest = job.kv_heads % threads;
  whole.parts[0] = {0, job.kv_heads, heads, tokens};
  whole.parts[1] = {job.kv_heads, 0, 1, tokens};
  if (threads == 1) return whole;
  const Work work = work_of(job, whole);
  if (share_heads(whole, work, heads, threads)) return whole;
  const size_t bytes =
      static_cast<size_t>(job.tokens * job.heads * whole.longest * partial_size(job.kv.dv)) * sizeof(float);
  const bool can_split = work.total >= 4 * threads && bytes <= worker.shared_bytes;
  Cut cut = whole;
  if (rest != 0) {
    const int64_t blocks = token_blocks(rest, threads);
    cut.parts[0].heads -= rest;
    cut.parts[1] = {job.kv_heads - rest, rest, 1, std::min((longest_q + blocks - 1) / blocks, most)};
    const bool is_fair = share_heads(cut, work_of(job, cut), heads, threads);
    if (!can_split || (is_fair && longest_q * job.group() > kGroupRows)) return cut;
  }
  if (!can_split) return cut;
  if (rest == 0 || rest == job.kv_heads) {
    cut = whole;
    cut.parts[0].item_heads = heads;
  } else {
    cut.parts[1].item_tokens = tokens;
  }
  split_tiles(cut, work, job.kv_heads, threads);
  return cut;
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
