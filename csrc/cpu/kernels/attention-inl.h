// SPDX-License-Identifier: Apache-2.0
// Attention over packed sequences (prefill) and over the paged cache (decode, several new tokens): both become a Job, a
// Job is cut into units, and threads take units.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cpu/kernels/attention_cut-inl.h"
#include "cpu/kernels/cache_packed-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// The work of one thread: its scratch memory and its current unit.
template <typename T, typename E>
class Attention {
 public:
  Attention(const Job<T, E>& job, const Cut& cut, const Worker& worker)
      : job_(job),
        cut_(cut),
        worker_(worker),
        layout_(attention_layout(job.heads, job.kv_heads, job.kv.d, job.kv.dv)) {}

  void run() {
    const LinearKernel& kernel = *job_.products.kernel;
    kernel.begin(kernel.row_unit);
    run_units();
    kernel.end();
    if (!cut_.splits()) return;
    worker_.sync();
    merge_partials();
  }

 private:
  std::byte* bytes(size_t offset) const { return worker_.scratch + offset; }
  template <typename I = float>
  I* at(size_t offset) const {
    return reinterpret_cast<I*>(bytes(offset));
  }
  int64_t value_width() const { return padded(job_.kv.dv); }

  // Query rows of one kv head: row r is (token, head), heads fastest.
  int64_t row_count(const Unit& unit) const { return unit.count * job_.group(); }
  // Returns where the rows of a kv head of the unit begin.
  int64_t first_row(const Unit& unit, int64_t kv_head) const {
    const int64_t row_unit = job_.products.kernel->row_unit;
    return kv_head * ((row_count(unit) + row_unit - 1) / row_unit * row_unit);
  }
  // Returns the index of a row's head among the heads of all tokens.
  int64_t head_of(const Unit& unit, int64_t kv_head, int64_t row) const {
    const int64_t token = unit.q_start + unit.token + row / job_.group();
    return token * job_.heads + (unit.kv_head + kv_head) * job_.group() + row % job_.group();
  }

  Rows rows(size_t depth, int64_t first) const {
    const size_t query_bytes = static_cast<size_t>(steps_of(job_.kv.d)) * job_.products.kernel->row_bytes;
    return {bytes(layout_.query) + static_cast<size_t>(first) * query_bytes,
            at(layout_.output) + first * value_width(),
            at(layout_.top) + first,
            at(layout_.sum) + first * 16,
            at<int32_t>(layout_.mask_row) + first,
            at<int32_t>(depth)};
  }

  // Runs units until there are none. The first tile of a unit is prefetched during the last one of the unit before.
  void run_units() const {
    Units<T, E> units(job_, cut_);
    Unit unit, following;
    Places now{}, next{};
    bool more = units.seek(worker_.take(), unit);
    if (more && !find(unit, unit.tile, now)) return;
    for (; more; unit = following) {
      begin(unit);
      for (int64_t tile = unit.tile; tile < unit.tiles || tile == unit.tile; ++tile, now = next) {
        const bool last = tile + 1 >= unit.tiles;
        if (last) more = units.seek(worker_.take(), following);
        if (!last || more) {
          if (!find(last ? following : unit, last ? following.tile : tile + 1, next)) return;
        } else {
          next.n = 0;
        }
        const Unit& then = last && more ? following : unit;
        const int64_t rows = row_count(unit);
        Prefetch<E> prefetch(kv_of(then), then.heads, next, unit.heads * shares_of(rows, now.n), has_few(rows));
        for (int64_t kv_head = 0; kv_head < unit.heads; ++kv_head) run_tile(unit, kv_head, tile, now, prefetch);
        prefetch.all();
        if (unit.split) store_partials(unit, tile);
      }
      if (!unit.split) write_output(unit);
    }
  }

  // Returns the shares of prefetching while n positions of a kv head meet so many rows.
  int64_t shares_of(int64_t rows, int64_t n) const {
    const int64_t groups = (rows + job_.products.kernel->max_rows - 1) / job_.products.kernel->max_rows;
    const int64_t pairs = (n + 2 * 16 - 1) / (2 * 16), values = value_width() / (2 * 16);
    const int64_t packing = job_.kv.packed ? 0 : (2 * kShares + 16) * pairs;
    return packing + groups * kShares * (pairs + values) + (has_few(rows) ? 3 * kRowShares * rows : 0);
  }
  static bool has_few(int64_t rows) { return rows <= kGroupRows; }

  void begin(const Unit& unit) const {
    const size_t row_bytes = job_.products.kernel->row_bytes;
    for (int64_t kv_head = 0; kv_head < unit.heads; ++kv_head) {
      const int64_t first = first_row(unit, kv_head);
      std::byte* query = bytes(layout_.query) + static_cast<size_t>(first * steps_of(job_.kv.d)) * row_bytes;
      for_each_group(*job_.products.kernel, row_count(unit), [&](Group group) {
        const size_t stride = static_cast<size_t>(group.stored) * row_bytes;
        if (group.stored > group.count) std::memset(query, 0, stride * static_cast<size_t>(steps_of(job_.kv.d)));
        for (int r = 0; r < group.count; ++r) {
          const T* q = job_.q + head_of(unit, kv_head, group.first + r) * job_.kv.d;
          prepare_query(job_.products, q, job_.kv.d, query + static_cast<size_t>(r) * row_bytes, stride);
        }
        query += stride * static_cast<size_t>(steps_of(job_.kv.d));
      });
      for (int64_t row = 0; row < row_count(unit); ++row) begin_row(unit, kv_head, row, first + row);
    }
    reset(first_row(unit, unit.heads));
  }

  void begin_row(const Unit& unit, int64_t kv_head, int64_t row, int64_t place) const {
    const int64_t token = unit.token + row / job_.group();
    const int64_t visible = visible_to(job_, unit.sequence, token);
    at<int32_t>(layout_.visible)[row] = static_cast<int32_t>(visible);  // the same for each kv head
    const MaskRows& rows = job_.mask_rows;
    const int64_t head = (unit.kv_head + kv_head) * job_.group() + row % job_.group();
    const int64_t position = job_.context_lens == nullptr ? token : visible - 1;
    const int64_t mask_row = rows.sequence * unit.sequence + rows.head * head + rows.position * position +
                             rows.token * (unit.q_start + token);
    at<int32_t>(layout_.mask_row)[place] = static_cast<int32_t>(mask_row);
  }

  void reset(int64_t n) const {
    std::fill_n(at(layout_.top), n, -HUGE_VALF);
    std::fill_n(at(layout_.sum), n * 16, 0.0F);
    std::fill_n(at(layout_.output), n * value_width(), 0.0F);
  }

  // Returns the keys and values of a unit.
  KeyValues<E> kv_of(const Unit& unit) const {
    KeyValues<E> kv = job_.kv.from_head(unit.kv_head);
    kv.first_place = unit.q_start;
    if (kv.table != nullptr) kv.table += unit.sequence * job_.table_width;
    return kv;
  }

  // Finds the places of a tile, in the one of two buffers that `places` does not have. Returns false if the block table
  // is invalid.
  bool find(const Unit& unit, int64_t tile, Places& places) const {
    const int64_t last = visible_to(job_, unit.sequence, unit.token + unit.count - 1);
    int64_t *at_places = at<int64_t>(layout_.places), *at_scales = at<int64_t>(layout_.scale_places);
    turn_ = kTile - turn_;
    places = {at_places + turn_, at_scales + turn_, static_cast<int>(std::min(kTile, last - tile * kTile))};
    return find_places(kv_of(unit), tile * kTile, places, worker_);
  }

  // How many positions of a tile each row sees; none if a mask hides all of them. Returns the most and the fewest.
  std::pair<int, int> find_depths(const Unit& unit, int64_t first, int64_t tile) const {
    int32_t* depths = at<int32_t>(layout_.depth);
    const MaskView& mask = job_.how.mask;
    const int32_t* visible = at<int32_t>(layout_.visible);
    const int start = static_cast<int>(tile * kTile);
    const int64_t count = row_count(unit);
    for (int64_t row = 0; row < count; ++row)
      depths[row] = std::clamp(visible[row] - start, 0, static_cast<int>(kTile));
    for (int64_t row = 0; mask.data != nullptr && row < count; ++row)
      if (mask.hides(at<int32_t>(layout_.mask_row)[first + row], start, depths[row])) depths[row] = 0;
    int most = 0, fewest = static_cast<int>(kTile);
    for (int64_t row = 0; row < count; ++row) {
      most = std::max(most, depths[row]);
      fewest = std::min(fewest, depths[row]);
    }
    return {most, fewest};
  }

  // Adds a tile of a kv head to the state.
  void run_tile(const Unit& unit, int64_t kv_head, int64_t tile, Places now, Prefetch<E>& prefetch) const {
    const int64_t first = first_row(unit, kv_head);
    const auto [most, fewest] = find_depths(unit, first, tile);
    if (most == 0) return;
    const KeyValues<E> kv = kv_of(unit).from_head(kv_head);
    load_scales(kv, now, at(layout_.key_scales), at(layout_.value_scales));
    const std::byte* keys = keys_of(kv, now, prefetch);
    const std::byte* values = values_of(kv, now, prefetch);
    // Integers are finite; their scales are in the weights.
    if (fewest == now.n || kHasScales<E> || values_are_finite(job_.products, values, kv.dv, 0, now.n)) {
      multiply_tile(row_count(unit), tile, {keys, values}, rows(layout_.depth, first), prefetch);
    } else {
      multiply_by_depth(row_count(unit), kv, tile, now, keys, rows(layout_.chosen, first));
    }
  }

  // Return the packed keys and values of a tile. Positions from now.n on are zeros in the step in which the others end. In
  // a packed cache they are what is there: scores of these keys are not looked at, and finite values get weights of zero.
  const std::byte* keys_of(const KeyValues<E>& kv, Places now, Prefetch<E>& prefetch) const {
    if (kv.packed) return reinterpret_cast<const std::byte*>(kv.keys + now.at[0] * kv.key_stride);
    pack_keys<T>(kv, job_.products, now, prefetch, bytes(layout_.keys));
    return bytes(layout_.keys);
  }
  const std::byte* values_of(const KeyValues<E>& kv, Places now, Prefetch<E>& prefetch) const {
    std::byte* own = bytes(layout_.values);
    if (kv.packed) {
      const auto* tile = reinterpret_cast<const std::byte*>(kv.values + now.at[0] * kv.value_stride);
      if (now.n % kStep == 0 || values_are_finite(job_.products, tile, kv.dv, now.n, now.n)) return tile;
      copy_packed_values(job_.products, tile, kv.dv, now.n, own);
    } else {
      pack_values<T>(kv, job_.products, now, prefetch, own);
    }
    return own;
  }

  struct PackedTile {
    const std::byte *keys, *values;
  };
  void multiply_tile(int64_t count, int64_t tile, PackedTile of, const Rows& rows, Prefetch<E>& prefetch) const {
    const Tile packed{of.keys,
                      of.values,
                      job_.kv.d,
                      job_.kv.dv,
                      tile * kTile,
                      job_.how,
                      at(layout_.key_scales),
                      at(layout_.value_scales),
                      at(layout_.scores),
                      bytes(layout_.weights)};
    for_each_group(*job_.products.kernel, count,
                   [&](Group group) { tile_group<T>(job_.products, packed, rows, group, prefetch); });
  }

  // Zero times infinity is NaN: with values that are not finite, the rows of each depth get values of their own, in
  // which the positions that they do not see are zeros.
  void multiply_by_depth(int64_t count, const KeyValues<E>& kv, int64_t tile, Places now, const std::byte* keys,
                         const Rows& rows) const {
    const int32_t* depths = at<int32_t>(layout_.depth);
    int32_t* chosen = at<int32_t>(layout_.chosen);
    for (int depth = 1; depth <= now.n; ++depth) {
      bool any = false;
      for (int64_t row = 0; row < count; ++row) {
        chosen[row] = depths[row] == depth ? depth : 0;
        any = any || chosen[row] != 0;
      }
      if (!any) continue;
      Prefetch<E> none(kv, 1, {}, 0, false);
      const std::byte* values = values_of(kv, {now.at, nullptr, depth}, none);
      multiply_tile(count, tile, {keys, values}, rows, none);
    }
  }

  // Stores the state after one tile, which is exactly the tile's own maximum, sum and output, and begins an empty one. The
  // first unit of an item has merged its tiles as they are merged in the end, and stores its state after the last one.
  void store_partials(const Unit& unit, int64_t tile) const {
    if (unit.tile == 0 && tile + 1 < unit.tiles) return;
    const int64_t width = value_width();
    for (int64_t kv_head = 0; kv_head < unit.heads; ++kv_head) {
      const int64_t first = first_row(unit, kv_head);
      for (int64_t row = 0; row < row_count(unit); ++row) {
        float* partial = partial_of(head_of(unit, kv_head, row), unit.tile == 0 ? 0 : tile);
        std::copy_n(at(layout_.output) + (first + row) * width, width, partial);
        std::copy_n(at(layout_.sum) + (first + row) * 16, 16, partial + width);
        partial[width + 16] = at(layout_.top)[first + row];
      }
    }
    reset(first_row(unit, unit.heads));
  }

  float* partial_of(int64_t head, int64_t tile) const {
    const int64_t index = head * cut_.longest + tile;
    return reinterpret_cast<float*>(worker_.shared) + index * partial_size(job_.kv.dv);
  }

  void merge_partials() const {
    int64_t token = 0, number = 0;
    const auto [begin, end] = worker_.share(job_.tokens * job_.heads);
    for (int64_t b = 0; b < job_.batch; token += job_.q_len(b), ++b)
      for (int64_t j = 0; j < job_.q_len(b); ++j)
        for (int64_t h = 0; h < job_.heads; ++h, ++number)
          if (const Part& part = cut_.part_of(h / job_.group()); number >= begin && number < end && part.tile_step > 0)
            merge_row(number, part.first_tiles, tiles_for(visible_to(job_, b, j)));
  }

  void merge_row(int64_t head, int64_t first_tiles, int64_t tiles) const {
    float* output = at(layout_.output);
    float *top = at(layout_.top), *sum = at(layout_.sum);
    reset(1);
    for (int64_t tile = 0; tile < tiles; tile = std::max(tile + 1, first_tiles)) {
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
    for (int64_t kv_head = 0; kv_head < unit.heads; ++kv_head)
      for (int64_t row = 0, at_row = first_row(unit, kv_head); row < row_count(unit); ++row, ++at_row)
        write_row(at(layout_.output) + at_row * value_width(), at(layout_.sum) + at_row * 16,
                  head_of(unit, kv_head, row));
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

  const Job<T, E>& job_;
  const Cut& cut_;
  const Worker& worker_;
  const AttentionLayout layout_;
  mutable int64_t turn_ = 0;  // the buffer of places that was filled last
};

template <typename T, typename E>
inline void run_job(const Job<T, E>& job, int64_t capacity, const Worker& worker) {
  if (!lengths_are_good(job, capacity, worker)) return;
  const Cut cut = cut_job(job, worker);
  Attention<T, E>(job, cut, worker).run();
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

// Keys and values of int8 in blocks, each d elements long.
inline KeyValues<int8_t> blocks_of(const std::byte* keys, const std::byte* values, const Int8Layout& layout) {
  return {reinterpret_cast<const int8_t*>(keys),
          reinterpret_cast<const int8_t*>(values),
          1,
          1,
          layout.size,
          layout.size,
          0,
          nullptr,
          layout.block_size,
          0,
          layout,
          keys,
          values};
}

// The keys and values of a prefill as a cache of int8 would have them: one block in the shared memory of the node.
template <typename T>
inline KeyValues<int8_t> rounded_rows(const SelfAttentionArgs& args, const Worker& worker) {
  const int64_t tokens = args.k.dim(0), heads = args.kv_heads, d = args.k.dim(-1);
  const Int8Layout layout{tokens, heads, d};
  std::byte *keys = worker.shared, *values = keys + layout.block_bytes();
  const auto [begin, end] = worker.share(tokens * heads);
  for (int64_t row = begin; row < end; ++row) {
    write_int8(args.k.as<T>() + row * d, layout, row / heads, row % heads, keys);
    write_int8(args.v.as<T>() + row * d, layout, row / heads, row % heads, values);
  }
  worker.sync();
  return blocks_of(keys, values, layout);
}

// The Job of what both kernels' arguments name alike; without causal, lengths and the width of a table.
template <Isa isa, typename T, typename E, typename Args>
inline Job<T, E> job_of(const Args& args, const KeyValues<E>& kv, int64_t batch) {
  return {.products = attention_products(isa, args.q.dtype),
          .q = args.q.template as<T>(),
          .out = args.out.template as<T>(),
          .kv = kv,
          .tokens = args.q.dim(0),
          .heads = args.heads,
          .kv_heads = args.kv_heads,
          .batch = batch,
          .how = {args.scale, args.soft_cap, view_of(args.mask)},
          .mask_rows = args.mask_rows};
}

// Returns the longest of some lengths that nobody has checked yet, at least 0.
inline int64_t longest_of(const TensorView& lengths) {
  const int32_t* begin = lengths.as<int32_t>();
  return std::accumulate(begin, begin + lengths.numel(), 0, [](int32_t a, int32_t b) { return std::max(a, b); });
}

template <Isa isa>
inline void self_attention(const SelfAttentionArgs& args, const Worker& worker) {
  const int64_t tokens = args.q.dim(0);
  if (!mask_rows_suffice(args.mask, args.mask_rows, longest_of(args.seq_len), tokens, worker)) return;
  with_float_type(args.q.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto attend = [&]<typename E>(const KeyValues<E>& kv) {
      Job<T, E> job = job_of<isa, T>(args, kv, args.seq_len.numel());
      job.causal = args.causal;
      job.q_lens = args.seq_len.as<int32_t>();
      Worker own = worker;
      own.shared_bytes = 0;  // contexts are not split
      run_job(job, tokens, own);
    };
    if (args.int8_kv) return attend(rounded_rows<T>(args, worker));
    attend(rows_of<T>(args.k, args.v, args.kv_heads));
  });
}

template <Isa isa>
inline void paged_attention(const PagedAttentionArgs& args, const Worker& worker) {
  const int64_t block_size = args.k_cache.dim(1), table_width = args.block_tables.dim(1);
  if (!mask_rows_suffice(args.mask, args.mask_rows, longest_of(args.context_lens), args.q.dim(0), worker)) return;
  with_float_type(args.q.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto attend = [&]<typename E>(KeyValues<E> kv) {
      kv.table = args.block_tables.as<int32_t>();
      kv.block_size = block_size;
      kv.blocks = args.k_cache.dim(0);
      kv.packed = args.packed_kv;
      Job<T, E> job = job_of<isa, T>(args, kv, args.context_lens.numel());
      job.causal = true;
      job.q_lens = args.q_lens.as<int32_t>();
      job.context_lens = args.context_lens.as<int32_t>();
      job.table_width = table_width;
      run_job(job, table_width * block_size, worker);
    };
    if (args.k_cache.dtype != DataType::i8) return attend(rows_of<T>(args.k_cache, args.v_cache, args.kv_heads));
    const Int8Layout layout{block_size, args.kv_heads, args.q.dim(-1)};
    attend(blocks_of(args.k_cache.as<std::byte>(), args.v_cache.as<std::byte>(), layout));
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
