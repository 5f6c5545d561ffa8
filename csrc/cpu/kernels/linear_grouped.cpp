// SPDX-License-Identifier: Apache-2.0
// Many products, each of some rows with a matrix of its own, as one job for all threads.
#include <algorithm>
#include <optional>

#include "cpu/kernels/linear.h"
#include "cpu/kernels/linear_run.h"

namespace atb_core::cpu {
namespace {

// Rows of one group, few enough to be prepared at once. After the last segment there is one without rows.
struct Segment {
  int64_t group, row, rows;
};

// Returns the most rows that are stored: units of a tile are filled up, with fewer rows than that.
int64_t most_stored(int64_t m) { return 2 * m; }

// Prepared rows that are kept between two barriers: kSharedBytes, and what rounding makes of a segment's rows.
size_t round_bytes(const LinearKernel& kernel, int64_t m, int64_t k) {
  const size_t limit = kSharedBytes + prepared_bytes(kernel, 2 * kernel.max_rows, k);
  return std::min(prepared_bytes(kernel, most_stored(m), k), limit);
}

class GroupedRun {
 public:
  GroupedRun(const LinearKernel& kernel, const GroupedLinearArgs& args, const Worker& worker)
      : kernel_(kernel), args_(args), worker_(worker), ticket_(worker.take()) {}

  void run() {
    for (Segment next = segment(0, 0); next.rows > 0;) {
      const Segment first = next;
      if (first.row > 0) worker_.sync();  // other threads still read the rows of the last round
      next = prepare(first);
      multiply(first, next);
    }
    if (unit_ > 0) kernel_.end();
  }

 private:
  // Returns the first rows from `row` on, of group `group` or a later one.
  Segment segment(int64_t group, int64_t row) const;
  Segment after(const Segment& s) const { return segment(s.group, s.row + s.rows); }
  LinearRun& bind(const Segment& s, size_t shared_offset);
  Segment prepare(const Segment& first);
  void multiply(const Segment& first, const Segment& end);
  void set_unit(int64_t unit);

  const LinearKernel& kernel_;
  const GroupedLinearArgs& args_;
  const Worker& worker_;
  int64_t ticket_, done_ = 0, unit_ = 0;
  LinearPart part_;
  LinearArgs linear_;
  std::optional<LinearRun> run_;
};

Segment GroupedRun::segment(int64_t group, int64_t row) const {
  while (group < args_.weight.count && args_.ends[group] <= row) ++group;
  if (group == args_.weight.count) return {group, row, 0};
  const int64_t start = group == 0 ? 0 : args_.ends[group - 1], whole = args_.ends[group] - start;
  const int64_t most = rows_at_once(kernel_, whole, args_.weight.k);
  return {group, row, std::min(most, args_.ends[group] - row)};
}

// Returns the product of a segment, valid until the next one is bound.
LinearRun& GroupedRun::bind(const Segment& s, size_t shared_offset) {
  const PackedWeight& all = args_.weight;
  part_ = {.weight = all.matrix(s.group),
           .begin = 0,
           .count = all.n,
           .bias = nullptr,
           .bias_dtype = args_.bias_dtype,
           .out = args_.out,
           .out_dtype = args_.out_dtype,
           .out_ld = all.n};
  if (args_.bias != nullptr) {
    part_.bias =
        static_cast<const std::byte*>(args_.bias) + static_cast<size_t>(s.group * all.n) * itemsize(args_.bias_dtype);
  }
  linear_ = {.x = args_.x, .dtype = all.dtype, .m = s.rows, .k = all.k, .x_ld = all.k, .parts = {&part_, 1}};
  return run_.emplace(kernel_, linear_, worker_, s.row, s.rows, shared_offset);
}

// Prepares the rows of as many segments from `first` on as the shared memory takes, those with few rows excepted:
// each thread does these when it meets them. Returns the first segment of the next round.
Segment GroupedRun::prepare(const Segment& first) {
  const size_t limit = round_bytes(kernel_, args_.m, args_.weight.k);
  size_t used = 0;
  int64_t turn = 0;
  Segment s = first;
  for (; s.rows > 0; s = after(s)) {
    LinearRun& run = bind(s, used);
    if (!run.shares_rows()) continue;
    if (used > 0 && used + run.shared_bytes() > limit) break;
    used += run.shared_bytes();
    for (int64_t g = 0; g < run.groups(); ++g) {
      if (turn++ % worker_.count == worker_.index) run.prepare_group(g);
    }
  }
  if (used > 0) worker_.sync();
  return s;
}

void GroupedRun::multiply(const Segment& first, const Segment& end) {
  size_t used = 0;
  for (Segment s = first; s.row != end.row; s = after(s)) {
    LinearRun& run = bind(s, used);
    used += run.shared_bytes();
    const int64_t last = done_ + run.tasks();
    if (ticket_ < last) {
      if (!run.shares_rows()) run.prepare_all();
      set_unit(run.unit());
      for (; ticket_ < last; ticket_ = worker_.take()) run.task(ticket_ - done_);
    }
    done_ = last;
  }
}

void GroupedRun::set_unit(int64_t unit) {
  if (unit == unit_) return;
  kernel_.begin(static_cast<int>(unit));
  unit_ = unit;
}

}  // namespace

bool groups_fit(const int64_t* ends, int64_t count, int64_t m, const Worker& worker) {
  int64_t row = 0;
  for (int64_t g = 0; g < count; ++g) {
    if (ends[g] < row || ends[g] > m) {
      worker.error->report("group_list must not decrease nor pass the rows of x", g, ends[g], m);
      return false;
    }
    row = ends[g];
  }
  if (row == m) return true;
  worker.error->report("group_list must end with the number of rows of x", count - 1, row, m);
  return false;
}

ScratchSize grouped_linear_scratch(Isa isa, DataType dtype, int64_t m, int64_t k) {
  const LinearKernel& kernel = linear_kernel(isa, dtype);
  if (m == 0) return {};
  const size_t accumulators = accumulator_bytes(kernel, most_stored(m));
  const size_t own = std::min(prepared_bytes(kernel, most_stored(m), k), kPrivateBytes);
  return {align_up(round_bytes(kernel, m, k)), align_up(accumulators + own)};
}

void grouped_linear(Isa isa, const GroupedLinearArgs& args, const Worker& worker) {
  GroupedRun(linear_kernel(isa, args.weight.dtype), args, worker).run();
}

}  // namespace atb_core::cpu
