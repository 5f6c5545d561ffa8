// SPDX-License-Identifier: Apache-2.0
// Some rows times one weight or several: the blocking that linear() and grouped_linear() have in common. Nothing
// here touches a sum: whatever the plan says, every output value is computed in the same order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cpu/kernels/linear.h"
#include "cpu/kernels/linear_kernel.h"

namespace atb_core::cpu {

// Rows and columns of a task with many rows, at most: of one slice, activations (256 rows x 256 elements x 2 bytes) take
// 128 KiB of L2 and sums (256 x 256 x 4 bytes) 256 KiB. Half as many rows: 0.82 of the speed; twice as many: no difference.
inline constexpr int64_t kTaskRows = 264;
inline constexpr int64_t kTaskBlocks = 16;
// Activations that are read again from L2, for the next columns.
inline constexpr size_t kRowsInCache = 1 << 20;
// Below this, a thread prepares the activations for itself: shorter than a barrier.
inline constexpr size_t kPrivateBytes = 32 << 10;
// Prepared activations of more rows are not kept at once.
inline constexpr size_t kSharedBytes = 16 << 20;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Rows come in units (1, or up to 16 with tile registers), units in groups (the rows of one tile of the
// kernel), groups in row blocks (the rows of a task).
struct LinearRows {
  int64_t m, unit, units, groups, blocks;
  int64_t smaller, larger;  // units of a small group, number of large groups

  LinearRows(const LinearKernel& kernel, int64_t row_unit, int64_t rows)
      : m(rows),
        unit(row_unit),
        units(ceil_div(rows, unit)),
        groups(ceil_div(units, kernel.max_rows / unit)),
        blocks(ceil_div(units * unit, kTaskRows)),
        smaller(units / groups),
        larger(units % groups) {}
  // The first groups have one unit more than the others. Divisions are made once: these functions are called
  // for every tile.
  int64_t group_start(int64_t group) const { return (group * smaller + std::min(group, larger)) * unit; }
  int64_t group_rows(int64_t group) const { return group_start(group + 1) - group_start(group); }
  int64_t largest_group() const { return group_rows(0); }
  int64_t block_start(int64_t block) const { return groups * block / blocks; }
  int64_t stored() const { return units * unit; }
};

// The unit for a call with m rows altogether.
inline int64_t row_unit(const LinearKernel& kernel, int64_t m) { return std::min<int64_t>(kernel.row_unit, m); }

// Rows processed between two barriers when there are too many for the shared scratch.
int64_t rows_at_once(const LinearKernel& kernel, int64_t m, int64_t k);

// What `stored` rows need, prepared, and what a thread needs for their sums.
size_t prepared_bytes(const LinearKernel& kernel, int64_t stored, int64_t k);
size_t accumulator_bytes(const LinearKernel& kernel, int64_t stored);

class LinearRun {
 public:
  // Rows [row, row + rows) of args.x, which stays where it is, as worker.scratch does. Prepared activations that
  // the threads share are at worker.shared + shared_offset.
  LinearRun(const LinearKernel& kernel, const LinearArgs& args, const Worker& worker, int64_t row, int64_t rows,
            size_t shared_offset = 0);

  // True: one thread prepares for all. False: each thread prepares everything for itself, in its scratch.
  bool shares_rows() const { return x_bytes_ > kPrivateBytes; }
  size_t shared_bytes() const { return shares_rows() ? x_bytes_ : 0; }
  int64_t groups() const { return rows_.groups; }
  int64_t unit() const { return rows_.unit; }
  void prepare_group(int64_t group);
  void prepare_all();

  int64_t tasks() const { return rows_.blocks * panels_; }
  void task(int64_t index);

 private:
  struct Tile {  // some blocks of a part
    const LinearPart* part;
    int64_t block;
  };
  // The parts whose blocks tasks are made of: a gate brings its other part with it.
  std::span<const LinearPart> parts() const { return gated() ? args_.parts.first(1) : args_.parts; }
  bool gated() const { return args_.gated; }
  // Returns true if each weight is used once, by rows that are in registers or L1.
  bool reads_once() const { return rows_.groups == 1; }
  void plan_columns();
  int64_t task_width(int64_t blocks) const;
  int64_t next_width(int64_t left) const;
  void run_of_blocks(const LinearPart& part, int64_t block, int64_t block_end);
  std::byte* prepared(int64_t group, int64_t step) const;
  void panel(const LinearPart& part, int64_t block, int64_t block_end, int64_t row_block);
  Tile tile(const LinearPart& part, int64_t block, int64_t index) const;
  int64_t tile_size(int64_t row_block) const;
  const std::byte* weights(const Tile& tile, int64_t step) const;
  void slice(const Tile& tile, const std::byte* next, int64_t step, int64_t row_block, float* acc, int64_t from_gate);
  FinishJob finish_job(const Tile& tile, int64_t group, const float* acc) const;
  void finish(FinishJob job, const Tile& tile, int64_t group, const float* gate_acc) const;
  const std::byte* set_prefetch(const std::byte* next, int64_t groups, TileJob& job) const;

  const LinearKernel& kernel_;
  const LinearArgs& args_;
  const Worker& worker_;
  const int64_t row_;
  const LinearRows rows_;
  const int64_t steps_;
  const size_t block_step_, pair_stride_, x_bytes_;
  int64_t slice_steps_ = 1, tile_blocks_ = 1, task_blocks_ = kPairBlocks, panels_ = 0, together_ = 1;
  int64_t from_gate_ = 0;  // blocks between those of a gate and those that belong to it
  size_t ahead_ = 0;       // the distance at which weights that are read once are fetched
  std::byte* x_ = nullptr;
  float* acc_ = nullptr;
};

}  // namespace atb_core::cpu
