// SPDX-License-Identifier: Apache-2.0
// Attention over packed sequences (prefill) and over the paged cache (decode, several new tokens): both become a Job, a
// Job is cut into units, and threads take units. The cut has no influence on the bits.
#pragma once

#include <algorithm>
#include <cmath>

#include "cpu/kernels/attention_tile-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

template <typename T>
struct Job {
  Products products;
  const T* q;
  T* out;
  KeyValues<T> kv;  // of kv head 0 of sequence 0
  int64_t tokens, heads, kv_heads, batch;
  Weighing how;
  bool causal;
  MaskRows mask_rows;
  const int32_t* q_lens;        // none: one token each
  const int32_t* context_lens;  // none: as many as q_lens
  int64_t table_width;

  int64_t group() const { return heads / kv_heads; }
  int64_t q_len(int64_t b) const { return q_lens != nullptr ? q_lens[b] : 1; }
  int64_t kv_len(int64_t b) const { return context_lens != nullptr ? context_lens[b] : q_lens[b]; }
};

// The cut of a Job: an item is (sequence, kv head, block of query tokens); with `tile_step`, a unit is some tiles of an
// item, otherwise all of them.
struct Cut {
  int64_t item_tokens;
  int64_t tile_step = 0;   // 0: items are not split
  int64_t tile_limit = 0;  // tiles of the longest context: the distance of rows in the partial results
};

struct Unit {
  int64_t sequence, kv_head;
  int64_t q_start;       // the first token of the sequence among all
  int64_t token, count;  // tokens of the item, from the sequence's first
  int64_t tile, tiles;   // tiles [tile, tiles)
};

template <typename T>
inline int64_t visible_to(const Job<T>& job, int64_t b, int64_t token) {
  const int64_t length = job.kv_len(b);
  if (!job.causal) return length;
  return std::max<int64_t>(0, length - job.q_len(b) + token + 1);
}

inline int64_t tiles_for(int64_t positions) { return (positions + kTile - 1) / kTile; }

// Iterates over the units in a fixed order, the tokens with the longest contexts first. `seek` only moves forward.
template <typename T>
class Units {
 public:
  Units(const Job<T>& job, const Cut& cut) : job_(job), cut_(cut) {}

  // Returns false if there is no unit of this number.
  bool seek(int64_t number, Unit& unit) {
    while (sequence_ < job_.batch) {
      const int64_t n = job_.q_len(sequence_);
      while (block_ < (n + cut_.item_tokens - 1) / cut_.item_tokens) {
        set_item(n, unit);
        const int64_t pieces =
            cut_.tile_step == 0 ? 1 : std::max<int64_t>(1, (unit.tiles + cut_.tile_step - 1) / cut_.tile_step);
        const int64_t index = number - first_;
        if (index < pieces * job_.kv_heads) {
          unit.kv_head = index / pieces;
          if (pieces > 1) {
            unit.tile = index % pieces * cut_.tile_step;
            unit.tiles = std::min(unit.tiles, unit.tile + cut_.tile_step);
          }
          return true;
        }
        first_ += pieces * job_.kv_heads;
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

  const Job<T>& job_;
  const Cut& cut_;
  int64_t sequence_ = 0, block_ = 0, q_start_ = 0;
  int64_t first_ = 0;  // the number of the current item's first unit
};

// The work of one thread: its scratch memory and its current unit.
template <typename T>
class Attention {
 public:
  Attention(const Job<T>& job, const Cut& cut, const Worker& worker)
      : job_(job),
        cut_(cut),
        worker_(worker),
        layout_(attention_layout(job.heads, job.kv_heads, job.kv.d, job.kv.dv)) {}

  void run() {
    const LinearKernel& kernel = *job_.products.kernel;
    kernel.begin(kernel.row_unit);
    Units<T> units(job_, cut_);
    Unit unit;
    while (units.seek(worker_.take(), unit)) {
      begin(unit);
      if (cut_.tile_step == 0) {
        if (run_tiles(unit, [](int64_t) {})) write_output(unit);
      } else {
        run_split(unit);
      }
    }
    kernel.end();
    if (cut_.tile_step == 0) return;
    worker_.sync();
    merge_partials();
  }

 private:
  std::byte* bytes(size_t offset) const { return worker_.scratch + offset; }
  template <typename I = float>
  I* at(size_t offset) const {
    return reinterpret_cast<I*>(bytes(offset));
  }
  int64_t row_count(const Unit& unit) const { return unit.count * job_.group(); }
  int64_t value_width() const { return padded(job_.kv.dv); }

  // Returns the index of a row's head among the heads of all tokens: row r of the unit is (token, head), heads fastest.
  int64_t head_of(const Unit& unit, int64_t row) const {
    const int64_t token = unit.q_start + unit.token + row / job_.group();
    return token * job_.heads + unit.kv_head * job_.group() + row % job_.group();
  }

  Rows rows(size_t depth) const {
    return {bytes(layout_.query),          at(layout_.output), at(layout_.top), at(layout_.sum),
            at<int32_t>(layout_.mask_row), at<int32_t>(depth)};
  }

  void begin(const Unit& unit) const {
    const int64_t steps = steps_of(job_.kv.d);
    const size_t row_bytes = job_.products.kernel->row_bytes;
    for_each_group(*job_.products.kernel, row_count(unit), [&](Group group) {
      std::byte* query = bytes(layout_.query) + static_cast<size_t>(group.first * steps) * row_bytes;
      const size_t stride = static_cast<size_t>(group.stored) * row_bytes;
      if (group.stored > group.count) std::memset(query, 0, stride * static_cast<size_t>(steps));
      for (int r = 0; r < group.count; ++r, query += row_bytes)
        prepare_query(job_.products, job_.q + head_of(unit, group.first + r) * job_.kv.d, job_.kv.d, query, stride);
    });
    for (int64_t row = 0; row < row_count(unit); ++row) {
      const int64_t token = unit.token + row / job_.group();
      const int64_t visible = visible_to(job_, unit.sequence, token);
      at<int32_t>(layout_.visible)[row] = static_cast<int32_t>(visible);
      const MaskRows& rows = job_.mask_rows;
      const int64_t head = unit.kv_head * job_.group() + row % job_.group();
      const int64_t position = job_.context_lens == nullptr ? token : visible - 1;
      const int64_t mask_row = rows.sequence * unit.sequence + rows.head * head + rows.position * position +
                               rows.token * (unit.q_start + token);
      at<int32_t>(layout_.mask_row)[row] = static_cast<int32_t>(mask_row);
    }
    reset(row_count(unit));
  }

  void reset(int64_t n) const {
    std::fill_n(at(layout_.top), n, -HUGE_VALF);
    std::fill_n(at(layout_.sum), n * 16, 0.0F);
    std::fill_n(at(layout_.output), n * value_width(), 0.0F);
  }

  // Returns the keys and values of a unit.
  KeyValues<T> kv_of(const Unit& unit) const {
    KeyValues<T> kv = job_.kv;
    kv.keys += unit.kv_head * kv.d;
    kv.values += unit.kv_head * kv.dv;
    kv.first_place = unit.q_start;
    if (kv.table != nullptr) kv.table += unit.sequence * job_.table_width;
    return kv;
  }

  // Finds the places of a tile, in one of two buffers. Returns false if the block table is invalid.
  bool find(const Unit& unit, const KeyValues<T>& kv, int64_t tile, Places& places) const {
    int64_t* found = at<int64_t>(layout_.places) + tile % 2 * kTile;
    const int64_t last = visible_to(job_, unit.sequence, unit.token + unit.count - 1);
    places = {found, static_cast<int>(std::min(kTile, last - tile * kTile))};
    return find_places(kv, tile * kTile, places.n, found, worker_);
  }

  // How many positions of a tile each row sees; none if a mask hides all of them. Returns the most and the fewest.
  std::pair<int, int> find_depths(const Unit& unit, int64_t tile) const {
    int32_t* depths = at<int32_t>(layout_.depth);
    const MaskView& mask = job_.how.mask;
    const int32_t* visible = at<int32_t>(layout_.visible);
    const int start = static_cast<int>(tile * kTile);
    int most = 0, fewest = static_cast<int>(kTile);
    for (int64_t row = 0; row < row_count(unit); ++row) {
      int depth = std::clamp(visible[row] - start, 0, static_cast<int>(kTile));
      if (mask.data != nullptr && mask.hides(at<int32_t>(layout_.mask_row)[row], start, depth)) depth = 0;
      depths[row] = depth;
      most = std::max(most, depth);
      fewest = std::min(fewest, depth);
    }
    return {most, fewest};
  }

  void multiply_tile(const Unit& unit, int64_t tile, size_t depth, Prefetch<T>& prefetch) const {
    const Tile packed{bytes(layout_.keys), bytes(layout_.values),  job_.kv.d,
                      job_.kv.dv,          tile * kTile,           job_.how,
                      at(layout_.scores),  bytes(layout_.weights), at(layout_.products)};
    for_each_group(*job_.products.kernel, row_count(unit),
                   [&](Group group) { tile_group<T>(job_.products, packed, rows(depth), group, prefetch); });
  }

  // Zero times infinity is NaN: with values that are not finite, the rows of each depth get values of their own, in
  // which the positions that they do not see are zeros.
  void multiply_by_depth(const Unit& unit, const KeyValues<T>& kv, int64_t tile, Places now) const {
    const int32_t* depths = at<int32_t>(layout_.depth);
    int32_t* chosen = at<int32_t>(layout_.chosen);
    for (int depth = 1; depth <= now.n; ++depth) {
      bool any = false;
      for (int64_t row = 0; row < row_count(unit); ++row) {
        chosen[row] = depths[row] == depth ? depth : 0;
        any = any || chosen[row] != 0;
      }
      if (!any) continue;
      Prefetch<T> none{kv, {}};
      pack_values(kv, job_.products, {now.at, depth}, none, bytes(layout_.values));
      multiply_tile(unit, tile, layout_.chosen, none);
    }
  }

  // Adds all tiles of the unit to the state and calls done(tile) after each. Returns false if the block table is
  // invalid.
  template <typename Done>
  bool run_tiles(const Unit& unit, Done done) const {
    const KeyValues<T> kv = kv_of(unit);
    Places now{}, next{};
    for (int64_t tile = unit.tile; tile < unit.tiles; ++tile, now = next) {
      if (tile == unit.tile && !find(unit, kv, tile, now)) return false;
      next.n = 0;
      if (tile + 1 < unit.tiles && !find(unit, kv, tile + 1, next)) return false;
      const auto [most, fewest] = find_depths(unit, tile);
      if (most > 0) {
        Prefetch<T> prefetch{kv, next};
        pack_keys(kv, job_.products, now, prefetch, bytes(layout_.keys));
        if (fewest == now.n || values_are_finite(kv, now)) {
          pack_values(kv, job_.products, now, prefetch, bytes(layout_.values));
          multiply_tile(unit, tile, layout_.depth, prefetch);
        } else {
          multiply_by_depth(unit, kv, tile, now);
        }
      }
      done(tile);
    }
    return true;
  }

  // Computes each tile from an empty state, which gives exactly the tile's own maximum, sum and output.
  void run_split(const Unit& unit) const {
    const int64_t n = row_count(unit), width = value_width();
    run_tiles(unit, [&](int64_t tile) {
      for (int64_t row = 0; row < n; ++row) {
        float* partial = partial_of(head_of(unit, row), tile);
        std::copy_n(at(layout_.output) + row * width, width, partial);
        std::copy_n(at(layout_.sum) + row * 16, 16, partial + width);
        partial[width + 16] = at(layout_.top)[row];
      }
      reset(n);
    });
  }

  float* partial_of(int64_t head, int64_t tile) const {
    const int64_t index = head * cut_.tile_limit + tile;
    return reinterpret_cast<float*>(worker_.shared) + index * partial_size(job_.kv.dv);
  }

  void merge_partials() const {
    int64_t token = 0, number = 0;
    const auto [begin, end] = worker_.share(job_.tokens * job_.heads);
    for (int64_t b = 0; b < job_.batch; token += job_.q_len(b), ++b)
      for (int64_t j = 0; j < job_.q_len(b); ++j)
        for (int64_t h = 0; h < job_.heads; ++h, ++number)
          if (number >= begin && number < end) merge_row(number, tiles_for(visible_to(job_, b, j)));
  }

  void merge_row(int64_t head, int64_t tiles) const {
    float* output = at(layout_.output);
    float *top = at(layout_.top), *sum = at(layout_.sum);
    reset(1);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const float* partial = partial_of(head, tile);
      float keep[16], take[16], tile_top[16];
      store(tile_top, set1(partial[value_width() + 16]));
      merge_sums(top, sum, tile_top, partial + value_width(), 1, keep, take);
      const F16 a = set1(keep[0]), b = set1(take[0]);
      for (int64_t c = 0; c < value_width(); c += 16)
        store(output + c, fma(load(partial + c), b, load(output + c) * a));
    }
    write_row(output, sum, head);
  }

  void write_output(const Unit& unit) const {
    for (int64_t row = 0; row < row_count(unit); ++row)
      write_row(at(layout_.output) + row * value_width(), at(layout_.sum) + row * 16, head_of(unit, row));
  }

  // Writes a row; a row that sees no position is zero. Adding zero turns -0 into +0: the sign of an empty sum depends
  // on how many empty tiles were merged into it.
  void write_row(const float* output, const float* sums, int64_t head) const {
    const int64_t dv = job_.kv.dv;
    const float sum = horizontal_sum(load(sums));
    const F16 total = set1(sum == 0.0F ? 1.0F : sum);
    T* out = job_.out + head * dv;
    for (int64_t c = 0; c < dv; c += 16) store_up_to_16(out + c, load(output + c) / total + zero(), dv - c);
  }

  const Job<T>& job_;
  const Cut& cut_;
  const Worker& worker_;
  const AttentionLayout layout_;
};

// Checks the lengths; every thread reads the same ones and gets the same result.
template <typename T>
inline bool lengths_are_good(const Job<T>& job, int64_t capacity, const Worker& worker) {
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

// Chooses the cut. With few long items for many threads, tiles are shared if there is memory for the partial results.
template <typename T>
inline Cut cut_job(const Job<T>& job, const Worker& worker) {
  const int64_t threads = worker.count;
  // Several register blocks an item, even if that leaves fewer items than would balance best.
  const int64_t fair = job.tokens * job.kv_heads / (4 * threads) + 1;
  const int64_t least = std::max<int64_t>(1, 12 / job.group()), most = std::max<int64_t>(1, kItemRows / job.group());
  Cut cut{std::clamp(fair, std::min(least, most), most)};
  if (threads == 1) return cut;
  int64_t items = 0, total = 0, longest = 0;
  for (int64_t b = 0; b < job.batch; ++b) {
    const int64_t n = (job.q_len(b) + cut.item_tokens - 1) / cut.item_tokens;
    const int64_t tiles = tiles_for(job.kv_len(b));
    items += n * job.kv_heads;
    total += n * job.kv_heads * tiles;
    longest = std::max(longest, tiles);
  }
  if (items >= 4 * threads || total < 4 * threads) return cut;
  const int64_t makespan = (items + threads - 1) / threads * longest;  // at worst, without splitting
  const size_t bytes = static_cast<size_t>(job.tokens * job.heads * longest * partial_size(job.kv.dv)) * sizeof(float);
  if (8 * makespan * threads <= 9 * total || bytes > worker.shared_bytes) return cut;
  cut.tile_step = std::max<int64_t>(1, total / (4 * threads));
  cut.tile_limit = longest;
  return cut;
}

template <typename T>
inline void run_job(const Job<T>& job, int64_t capacity, const Worker& worker) {
  if (!lengths_are_good(job, capacity, worker)) return;
  const Cut cut = cut_job(job, worker);
  Attention<T>(job, cut, worker).run();
}

inline MaskView view_of(const TensorView& mask) {
  if (mask.data == nullptr) return {};
  return {mask.data, mask.dtype, mask.dim(-1)};
}

// Whoever binds the kernel has compared the other dimensions.
inline bool mask_rows_suffice(const TensorView& mask, const MaskRows& rows, int64_t positions, int64_t tokens,
                              const Worker& worker) {
  const int64_t needed = rows.position != 0 ? positions : rows.token != 0 ? tokens : 1;
  if (mask.data == nullptr || mask.dim(-2) >= needed) return true;
  worker.error->report("mask has too few rows", 0, mask.dim(-2), needed);
  return false;
}

template <Isa isa>
inline void self_attention(const SelfAttentionArgs& args, const Worker& worker) {
  const int64_t tokens = args.q.dim(0), batch = args.seq_len.numel();
  const int32_t* lengths = args.seq_len.as<int32_t>();
  int64_t longest = 0;
  for (int64_t b = 0; b < batch; ++b) longest = std::max<int64_t>(longest, lengths[b]);
  if (!mask_rows_suffice(args.mask, args.mask_rows, longest, tokens, worker)) return;
  with_float_type(args.q.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const int64_t d = args.q.dim(-1), dv = args.v.dim(-1);
    const KeyValues<T> kv{
        args.k.as<T>(), args.v.as<T>(), args.kv_heads * d, args.kv_heads * dv, d, dv, 0, nullptr, 1, 0};
    const Job<T> job{attention_products(isa, args.q.dtype),
                     args.q.as<T>(),
                     args.out.as<T>(),
                     kv,
                     tokens,
                     args.heads,
                     args.kv_heads,
                     batch,
                     {args.scale, args.soft_cap, view_of(args.mask)},
                     args.causal,
                     args.mask_rows,
                     lengths,
                     nullptr,
                     0};
    run_job(job, tokens, worker);
  });
}

template <Isa isa>
inline void paged_attention(const PagedAttentionArgs& args, const Worker& worker) {
  const int64_t tokens = args.q.dim(0), batch = args.context_lens.numel();
  const int64_t block_size = args.k_cache.dim(1), table_width = args.block_tables.dim(1);
  const int32_t* lengths = args.context_lens.as<int32_t>();
  int64_t longest = 0;
  for (int64_t b = 0; b < batch; ++b) longest = std::max<int64_t>(longest, lengths[b]);
  if (!mask_rows_suffice(args.mask, args.mask_rows, longest, tokens, worker)) return;
  with_float_type(args.q.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const int64_t d = args.q.dim(-1), dv = args.v_cache.dim(-1);
    const KeyValues<T> kv{args.k_cache.as<T>(),
                          args.v_cache.as<T>(),
                          args.kv_heads * d,
                          args.kv_heads * dv,
                          d,
                          dv,
                          0,
                          args.block_tables.as<int32_t>(),
                          block_size,
                          args.k_cache.dim(0)};
    const int32_t* q_lens = args.q_lens.data != nullptr ? args.q_lens.as<int32_t>() : nullptr;
    const Job<T> job{attention_products(isa, args.q.dtype),
                     args.q.as<T>(),
                     args.out.as<T>(),
                     kv,
                     tokens,
                     args.heads,
                     args.kv_heads,
                     batch,
                     {args.scale, args.soft_cap, view_of(args.mask)},
                     true,
                     args.mask_rows,
                     q_lens,
                     lengths,
                     table_width};
    run_job(job, table_width * block_size, worker);
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
