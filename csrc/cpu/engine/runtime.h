// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cpu/engine/memory.h"
#include "cpu/isa.h"
#include "cpu/kernels/kernels.h"
#include "cpu/thread_pool.h"

namespace atb_core {

// The resources that programs share: instruction set level, threads, and working memory, of which one set is enough
// because the pool runs one program at a time.
class Runtime {
 public:
  // About 1.5 us of one thread: several times the cost of the barrier that a second thread needs, and far less than the
  // barrier costs if the other thread has lost its processor.
  static constexpr double kSmallWork = 16 << 10;

  // `num_threads` comes from resolve_num_threads(); the level must be supported. Nodes of at most `small_work` (see
  // Bound::work) run on one thread; tests pass 0 so that all threads share small nodes, too.
  Runtime(int num_threads, cpu::Isa isa, double small_work = kSmallWork);

  cpu::Isa isa() const { return isa_; }
  // The distance at which weights that are used once are fetched, as chosen so far: the same for all of a process.
  size_t prefetch_ahead() const;
  int num_threads() const { return pool_.size(); }
  cpu::ThreadPool& pool() { return pool_; }
  double small_work() const { return small_work_; }

  struct Workspace {
    std::byte* arena;
    std::byte* shared;
    std::byte* scratch;  // thread i has [i * scratch_stride, (i + 1) * scratch_stride)
    size_t scratch_stride;
  };
  // Returns memory of at least these sizes, kept for the next call and grown when needed. The caller holds the pool's
  // lease.
  Workspace workspace(const cpu::ThreadPool::Lease& lease, size_t arena, cpu::ScratchSize scratch);

  // Returns the bytes of working memory that are held now.
  size_t workspace_bytes() const { return arena_.bytes() + shared_.bytes() + scratch_.bytes(); }

 private:
  const cpu::Isa isa_;
  cpu::ThreadPool pool_;
  const double small_work_;
  Buffer arena_, shared_, scratch_;
};

}  // namespace atb_core
