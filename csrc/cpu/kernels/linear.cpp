// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/linear.h"

#include <algorithm>
#include <cstring>

#include "atb_core/error.h"
#include "cpu/kernels/linear_run.h"
#include "cpu/kernels/prefetch_choice.h"

namespace atb_core::cpu {
namespace {

// The blocks of a part, in whole pairs.
struct BlockRange {
  int64_t begin, end;
  explicit BlockRange(const LinearPart& part)
      : begin(part.begin / (kBlockColumns * kPairBlocks) * kPairBlocks), end(packed_blocks(part.begin + part.count)) {
    if (part.count == 0) end = begin;
  }
};

// Returns the scales of a weight's outputs, null if it has none.
const float* quant_scales(const PackedWeight& weight) {
  if (weight.format == QuantFormat::none) return nullptr;
  return quant_channel_scales(weight.data, weight.format, weight.n, weight.k);
}

// Prefetches a tile's output. Its rows are far apart, and no hardware prefetcher predicts them: without this, waiting
// for these lines takes 8% of the time at 512 rows and k = 896.
void prefetch_output(const FinishJob& job) {
  const size_t item = itemsize(job.out_dtype);
  const size_t row = static_cast<size_t>(std::max<int64_t>(job.columns, 0)) * item;
  const auto* out = static_cast<const std::byte*>(job.out);
  for (int64_t r = 0; r < job.rows; ++r, out += static_cast<size_t>(job.out_ld) * item) {
    for (size_t i = 0; i < row; i += 64) __builtin_prefetch(out + i, 1, 3);
  }
}

}  // namespace

int64_t rows_at_once(const LinearKernel& kernel, int64_t m, int64_t k) {
  const size_t row = static_cast<size_t>(std::max<int64_t>(kernel.steps(k), 1)) * kernel.row_bytes;
  const int64_t most = std::max<int64_t>(static_cast<int64_t>(kSharedBytes / row), kernel.max_rows);
  const int64_t even = ceil_div(m, ceil_div(m, most));
  return std::min(m, ceil_div(even, kernel.max_rows) * kernel.max_rows);
}

size_t prepared_bytes(const LinearKernel& kernel, int64_t stored, int64_t k) {
  return static_cast<size_t>(stored * kernel.steps(k)) * kernel.row_bytes;
}

size_t accumulator_bytes(const LinearKernel& kernel, int64_t stored) {
  const int64_t largest = std::min(stored, kTaskRows + 2 * kernel.max_rows);
  return static_cast<size_t>(largest * kTaskBlocks * kBlockColumns) * sizeof(float);
}

LinearRun::LinearRun(const LinearKernel& kernel, const LinearArgs& args, const Worker& worker, int64_t row,
                     int64_t rows, size_t shared_offset)
    : kernel_(kernel),
      args_(args),
      worker_(worker),
      row_(row),
      rows_(kernel, row_unit(kernel, args.m), rows),
      steps_(kernel.steps(args.k)),
      block_step_(kernel.step_bytes != 0 ? kernel.step_bytes : block_step_bytes(args.dtype)),
      pair_stride_(kPairBlocks * block_step_ * static_cast<size_t>(steps_)),
      x_bytes_(prepared_bytes(kernel, rows_.stored(), args.k)) {
  acc_ = reinterpret_cast<float*>(worker.scratch);
  x_ = shares_rows() ? worker.shared + shared_offset : worker.scratch + accumulator_bytes(kernel, rows_.stored());
  plan_columns();
}

void LinearRun::plan_columns() {
  if (gated()) from_gate_ = BlockRange(args_.parts[1]).begin - BlockRange(args_.parts[0]).begin;
  int64_t blocks = 0;
  for (const LinearPart& part : parts()) blocks += BlockRange(part).end - BlockRange(part).begin;
  const size_t block_bytes = x_bytes_ / static_cast<size_t>(rows_.blocks);
  together_ = std::max<int64_t>(worker_.count, static_cast<int64_t>(kRowsInCache / std::max<size_t>(block_bytes, 1)));
  tile_blocks_ = kernel_.blocks(static_cast<int>(rows_.largest_group()));
  slice_steps_ = std::max<int64_t>(steps_, 1);
  if (rows_.groups > 1) {
    const auto most = std::max<int64_t>(static_cast<int64_t>(kernel_.slice_bytes / (block_step_ * kPairBlocks)), 1);
    slice_steps_ = ceil_div(slice_steps_, ceil_div(slice_steps_, most));
  }
  if (!reads_once()) task_blocks_ = task_width(blocks);
  for (const LinearPart& part : parts()) {
    for (BlockRange rest(part); rest.begin < rest.end; rest.begin += next_width(rest.end - rest.begin)) ++panels_;
  }
}

// Returns the width of tasks, the widest with which no thread gets more than a little more of the `blocks` than another:
// wide tasks read the rows less often.
int64_t LinearRun::task_width(int64_t blocks) const {
  const auto tasks = [&](int64_t width) { return rows_.blocks * ceil_div(blocks, width); };
  const auto longest = [&](int64_t width) { return ceil_div(tasks(width), worker_.count) * width; };
  const int64_t most = kTaskBlocks / (gated() ? 2 : 1), least_tasks = 2 * worker_.count;
  int64_t widest = kPairBlocks;
  for (int64_t width = 2 * kPairBlocks; width <= most && tasks(width) >= least_tasks; width += kPairBlocks) {
    if (32 * longest(width) <= 33 * longest(kPairBlocks)) widest = width;
  }
  return widest;
}

// Returns how many blocks the next task of a part has, of which so many are left. Weights that are read once come in long
// runs, because prefetchers lose what is behind the end of each: a thread reads 22 to 26 GB/s in runs of 56 KiB and 28 to
// 32 in runs of 1 MiB (Sapphire Rapids). The last runs are short, so that a thread that was held up leaves more to others.
int64_t LinearRun::next_width(int64_t left) const {
  if (!reads_once()) return task_blocks_;
  return ceil_div(left, 2 * worker_.count * kPairBlocks) * kPairBlocks;
}

// [slice of k][group][step][row]: while a slice of the weights is in L1, all rows are read in one ascending
// stream.
std::byte* LinearRun::prepared(int64_t group, int64_t step) const {
  const int64_t steps = std::min(slice_steps_, steps_ - step);
  return x_ + static_cast<size_t>(rows_.stored() * step + rows_.group_start(group) * steps) * kernel_.row_bytes;
}

void LinearRun::prepare_group(int64_t group) {
  const int64_t start = rows_.group_start(group), count = rows_.group_rows(group);
  const size_t stride = static_cast<size_t>(count) * kernel_.row_bytes, item = itemsize(args_.dtype);
  for (int64_t step = 0; step < steps_; step += slice_steps_) {
    std::byte* dst = prepared(group, step);
    const int64_t steps = std::min(slice_steps_, steps_ - step), first = step * kernel_.step;
    for (int64_t r = start; r < start + count; ++r, dst += kernel_.row_bytes) {
      if (r < rows_.m) {
        const auto* x = static_cast<const std::byte*>(args_.x);
        x += static_cast<size_t>((row_ + r) * args_.x_ld + first) * item;
        kernel_.prepare_row(x, std::min(args_.k - first, steps * kernel_.step), dst, stride);
      } else {  // the rest of a unit
        for (int64_t s = 0; s < steps; ++s) std::memset(dst + static_cast<size_t>(s) * stride, 0, kernel_.row_bytes);
      }
    }
  }
}

void LinearRun::prepare_all() {
  for (int64_t g = 0; g < rows_.groups; ++g) prepare_group(g);
}

// Tasks of the same columns follow each other, so that the threads share these weights in their caches; but no more of
// them than the rows of which stay in L2, too.
void LinearRun::task(int64_t index) {
  const int64_t first = index / (together_ * panels_) * together_, here = std::min(together_, rows_.blocks - first);
  index -= first * panels_;
  const int64_t row_block = first + index % here;
  int64_t panel_index = index / here;
  for (const LinearPart& part : parts()) {
    for (BlockRange rest(part); rest.begin < rest.end; --panel_index) {
      const int64_t block = rest.begin;
      rest.begin = std::min(block + next_width(rest.end - block), rest.end);
      if (panel_index > 0) continue;
      if (!reads_once()) return panel(part, block, rest.begin, row_block);
      const auto pairs = static_cast<size_t>(ceil_div(rest.begin - block, kPairBlocks));
      const PrefetchTrial trial(prefetch_choice(), pairs * pair_stride_ * (gated() ? 2 : 1));
      ahead_ = trial.ahead();
      return run_of_blocks(part, block, rest.begin);
    }
  }
}

// Multiplies the only group of rows by blocks that follow each other in memory. Of gates, as many as there is room for
// sums of come before what belongs to them.
void LinearRun::run_of_blocks(const LinearPart& part, int64_t block, int64_t block_end) {
  if (!gated()) {
    for (; block < block_end; block += tile_blocks_) slice({&part, block}, nullptr, 0, 0, acc_, 0);
    return;
  }
  const int64_t acc_size = tile_size(0);
  while (block < block_end) {
    const int64_t first = block, end = std::min(block + kTaskBlocks - kPairBlocks, block_end);
    float* acc = acc_;
    for (; block < end; block += tile_blocks_, acc += acc_size) slice({&part, block}, nullptr, 0, 0, acc, 0);
    int64_t from_gate = acc - acc_;
    for (int64_t b = first; b < end; b += tile_blocks_, from_gate -= acc_size) {
      slice({&args_.parts[1], b + from_gate_}, nullptr, 0, 0, acc, from_gate);
    }
  }
}

void LinearRun::panel(const LinearPart& part, int64_t block, int64_t block_end, int64_t row_block) {
  const int64_t acc_size = tile_size(row_block);
  const int64_t tiles = ceil_div(block_end - block, tile_blocks_) * (gated() ? 2 : 1);
  for (int64_t step = 0; step == 0 || step < steps_; step += slice_steps_) {
    const int64_t steps = std::min(slice_steps_, steps_ - step);
    for (int64_t i = 0; i < tiles; ++i) {
      // After the last tile, the next slice of the first one; a task of one pair goes on in one stream.
      const Tile here = tile(part, block, i), next = tile(part, block, (i + 1) % tiles);
      const std::byte* then = weights(next, i + 1 < tiles ? step : step + steps);
      slice(here, then, step, row_block, acc_ + i * acc_size, acc_size);
    }
  }
}

// Returns tile `index` of the panel that begins with `block`: gates take turns with what they belong to.
LinearRun::Tile LinearRun::tile(const LinearPart& part, int64_t block, int64_t index) const {
  if (!gated()) return {&part, block + index * tile_blocks_};
  block += index / 2 * tile_blocks_;
  return index % 2 == 0 ? Tile{&part, block} : Tile{&args_.parts[1], block + from_gate_};
}

// Returns the number of sums of a tile, for all groups of a row block.
int64_t LinearRun::tile_size(int64_t row_block) const {
  const int64_t first = rows_.block_start(row_block), last = rows_.block_start(row_block + 1);
  return (rows_.group_start(last) - rows_.group_start(first)) * tile_blocks_ * kBlockColumns;
}

const std::byte* LinearRun::weights(const Tile& tile, int64_t step) const {
  return tile.part->weight.data + static_cast<size_t>(tile.block / kPairBlocks) * pair_stride_ +
         static_cast<size_t>(tile.block % kPairBlocks) * block_step_ +
         static_cast<size_t>(step) * kPairBlocks * block_step_;
}

// Multiplies one slice of k for some blocks and all groups of a row block. The weights at `next` follow. The sums of the
// gate, if the tile belongs to one, are `from_gate` floats before its own.
void LinearRun::slice(const Tile& tile, const std::byte* next, int64_t step, int64_t row_block, float* acc,
                      int64_t from_gate) {
  const int64_t first = rows_.block_start(row_block), last = rows_.block_start(row_block + 1);
  TileJob job{};
  job.blocks = static_cast<int>(tile_blocks_);
  job.w = weights(tile, step);
  job.steps = std::min(slice_steps_, steps_ - step);
  job.first = step == 0;
  const std::byte* prefetch_end = set_prefetch(next, last - first, job);
  const bool waits = gated() && tile.part == &args_.parts[0], finishes = step + slice_steps_ >= steps_ && !waits;
  for (int64_t g = first; g < last; ++g) {
    const int64_t rows = rows_.group_rows(g);
    job.rows = static_cast<int>(rows);
    job.x = prepared(g, step);
    job.acc = acc;
    if (!finishes) {
      kernel_.multiply(job);
    } else {
      const FinishJob last_job = finish_job(tile, g, acc);
      prefetch_output(last_job);
      kernel_.multiply(job);
      if (last_job.columns > 0) finish(last_job, tile, g, acc - from_gate);
    }
    acc += rows * tile_blocks_ * kBlockColumns;
    job.prefetch += job.steps * job.prefetch_lines * 64;
    if (job.prefetch >= prefetch_end) job.prefetch_lines = 0;
  }
}

// With one group, weights are used once: prefetch ahead in their own stream. With more, the slice is in L1
// after the first group, and the groups bring in the next one together. Returns where that ends.
const std::byte* LinearRun::set_prefetch(const std::byte* next, int64_t groups, TileJob& job) const {
  if (reads_once()) {
    job.ahead = ahead_;
    return nullptr;
  }
  if (tile_blocks_ != kPairBlocks) return nullptr;
  const size_t pair_step = kPairBlocks * block_step_, bytes = static_cast<size_t>(job.steps) * pair_step;
  job.prefetch_lines = static_cast<int>(ceil_div(static_cast<int64_t>(pair_step / 64), groups));
  job.prefetch = next;
  return next + bytes;
}

// Finishes a tile, of two parts the second one, whose gate has its sums at `gate_acc`.
void LinearRun::finish(FinishJob job, const Tile& tile, int64_t group, const float* gate_acc) const {
  if (!gated()) return kernel_.finish(job);
  const FinishJob gate = finish_job({&args_.parts[0], tile.block - from_gate_}, group, gate_acc);
  job.gate = &gate;
  kernel_.finish(job);
}

FinishJob LinearRun::finish_job(const Tile& tile, int64_t group, const float* acc) const {
  const LinearPart& part = *tile.part;
  const int64_t columns = tile_blocks_ * kBlockColumns, column = tile.block * kBlockColumns;
  const int64_t skip = std::max<int64_t>(part.begin - column, 0);
  const int64_t start = rows_.group_start(group), to = column + skip - part.begin;
  FinishJob job{};
  job.acc = acc + skip;
  job.acc_ld = columns;
  job.rows = std::min(rows_.group_rows(group), rows_.m - start);
  job.columns = std::min(columns - skip, part.count - to);
  job.bias_dtype = part.bias_dtype;
  if (part.bias != nullptr) {
    job.bias = static_cast<const std::byte*>(part.bias) + static_cast<size_t>(to) * itemsize(part.bias_dtype);
  }
  if (const float* scales = quant_scales(part.weight)) job.scales = scales + column + skip;
  if (part.scales != nullptr) job.scales = part.scales + to;
  if (part.row_scales != nullptr) job.row_scales = part.row_scales + row_ + start;
  job.out_dtype = part.out_dtype;
  job.out_ld = part.out_ld;
  job.out = static_cast<std::byte*>(part.out) +
            static_cast<size_t>((row_ + start) * part.out_ld + to) * itemsize(part.out_dtype);
  return job;
}

namespace {

const LinearKernel* own_kernel(Isa isa, DataType dtype) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2:
      return linear_kernel_avx2(dtype);
    case Isa::avx512:
      return linear_kernel_avx512(dtype);
    case Isa::avx512_bf16:
      return linear_kernel_avx512_bf16(dtype);
    case Isa::amx:
      return linear_kernel_amx(dtype);
#elif defined(__aarch64__)
    case Isa::neon:
    case Isa::neon_dot:
      return linear_kernel_neon(dtype);
    case Isa::neon_bf16:
      return linear_kernel_neon_bf16(dtype);
#endif
    case Isa::amx_emulated:
      return linear_kernel_amx_emulated(dtype);
    default:
      return linear_kernel_portable(dtype);
  }
}

const LinearKernel* own_kernel(Isa isa, DataType dtype, QuantFormat format) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2:
      return quant_kernel_avx2(dtype, format);
    case Isa::avx512:
      return quant_kernel_avx512(dtype, format);
    case Isa::avx512_bf16:
      return quant_kernel_avx512_bf16(dtype, format);
    case Isa::amx:
      return quant_kernel_amx(dtype, format);
#elif defined(__aarch64__)
    case Isa::neon:
      return quant_kernel_neon(dtype, format);
    case Isa::neon_dot:
      return quant_kernel_neon_dot(dtype, format);
    case Isa::neon_bf16:
      return quant_kernel_neon_bf16(dtype, format);
#endif
    case Isa::amx_emulated:
      return quant_kernel_amx_emulated(dtype, format);
    default:
      return quant_kernel_portable(dtype, format);
  }
}

}  // namespace

const LinearKernel& linear_kernel(Isa isa, DataType dtype, QuantFormat format) {
  if (dtype == DataType::i8 && integer_zero(isa) == 0) return *own_kernel(isa, dtype);
  if (format != QuantFormat::none || dtype == DataType::i8) {
    const LinearKernel* kernel = own_kernel(isa, dtype, format);
    if (kernel == nullptr) fail("linear: no kernel for ", name(format), " weights and ", name(dtype));
    return *kernel;
  }
  // The levels with bf16 instructions only treat other types as the level below.
  const bool short_of_types = dtype != DataType::bf16 && (isa == Isa::avx512_bf16 || isa == Isa::amx);
  if (short_of_types) isa = Isa::avx512;
  if (dtype != DataType::bf16 && isa == Isa::neon_bf16) isa = Isa::neon;
  if (dtype != DataType::bf16 && isa == Isa::amx_emulated) isa = Isa::portable;
  const LinearKernel* kernel = own_kernel(isa, dtype);
  if (kernel == nullptr) fail("linear: no kernel for ", name(dtype), " weights");
  return *kernel;
}

ScratchSize linear_scratch(Isa isa, DataType dtype, int64_t m, int64_t k, QuantFormat format) {
  const LinearKernel& kernel = linear_kernel(isa, dtype, format);
  if (m == 0) return {};
  const int64_t stored = LinearRows(kernel, row_unit(kernel, m), rows_at_once(kernel, m, k)).stored();
  const size_t x = prepared_bytes(kernel, stored, k);
  // The last round may have fewer rows than the others, few enough to be private.
  return {align_up(x), align_up(accumulator_bytes(kernel, stored) + std::min(x, kPrivateBytes))};
}

namespace {

// The products of one call, in rounds of parts with one format and as many rows as the shared memory takes.
class LinearCall {
 public:
  LinearCall(Isa isa, const Worker& worker) : isa_(isa), worker_(worker), ticket_(worker.take()) {}

  void run(const LinearArgs& args) {
    const LinearKernel& kernel = linear_kernel(isa_, args.dtype, args.parts.front().weight.format);
    const int64_t at_once = rows_at_once(kernel, args.m, args.k);
    kernel.begin(static_cast<int>(row_unit(kernel, args.m)));
    for (int64_t row = 0; row < args.m; row += at_once) {
      LinearRun run(kernel, args, worker_, row, std::min(at_once, args.m - row));
      if (run.shares_rows()) {
        if (shared_) worker_.sync();  // other threads still read the rows of the last round
        shared_ = true;
        const auto [begin, end] = worker_.share(run.groups());
        for (int64_t g = begin; g < end; ++g) run.prepare_group(g);
        worker_.sync();
      } else {
        run.prepare_all();
      }
      for (; ticket_ < done_ + run.tasks(); ticket_ = worker_.take()) run.task(ticket_ - done_);
      done_ += run.tasks();
    }
    kernel.end();
  }

 private:
  const Isa isa_;
  const Worker& worker_;
  int64_t ticket_, done_ = 0;
  bool shared_ = false;
};

}  // namespace

bool can_gate(std::span<const LinearPart> parts) {
  constexpr int64_t kPair = kPairBlocks * kBlockColumns;
  return parts.size() == 2 && parts[0].weight.format == parts[1].weight.format && parts[0].count == parts[1].count &&
         parts[0].begin % kPair == 0 && parts[1].begin % kPair == 0;
}

void linear(Isa isa, const LinearArgs& args, const Worker& worker) {
  if (args.m == 0 || args.parts.empty()) return;
  LinearCall call(isa, worker);
  for (size_t begin = 0; begin < args.parts.size();) {
    size_t end = begin + 1;
    while (end < args.parts.size() && args.parts[end].weight.format == args.parts[begin].weight.format) ++end;
    LinearArgs same = args;
    same.parts = args.parts.subspan(begin, end - begin);
    call.run(same);
    begin = end;
  }
}

}  // namespace atb_core::cpu
