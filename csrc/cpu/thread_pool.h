// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <mutex>
#include <type_traits>

#include "atb_core/fork_safe_mutex.h"
#include "cpu/barrier.h"
#include "cpu/flush_denormals.h"

namespace atb_core::cpu {

// Returns the number of threads: `requested` if positive, else ATB_NUM_THREADS, else OMP_NUM_THREADS, else the number
// of processors that this process may use. Throws Error if a variable is not a positive number.
int resolve_num_threads(int requested);

// The engine's own threads. The thread that calls run() is worker 0; the others spin shortly after each region, so that
// the next one starts without a system call, and then sleep.
//
// run() may be called from several threads; the regions then run one after another. After fork() the child starts new
// threads with its first call of run(); no region may run at the moment of the fork (see ForkGate).
class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Exclusive use of the pool. The holder may prepare memory that the region then uses.
  class Lease {
   public:
    // Calls fn(index, barrier) once on each of the first `count` threads, with denormals flushed, and returns when all
    // have finished: the nanoseconds for which they waited for one another, but for short waits. fn must not throw and
    // must not call run() of the same pool.
    template <typename Fn>
    int64_t run(int count, Fn&& fn) {
      using Type = std::remove_reference_t<Fn>;
      return run_raw(
          count, [](void* context, int index, Barrier& barrier) { (*static_cast<Type*>(context))(index, barrier); },
          const_cast<void*>(static_cast<const void*>(&fn)));
    }

    template <typename Fn>
    void run(Fn&& fn) {
      run(pool_.size_, fn);
    }

   private:
    friend class ThreadPool;
    explicit Lease(ThreadPool& pool);
    int64_t run_raw(int count, void (*fn)(void*, int, Barrier&), void* context);
    ThreadPool& pool_;
    std::unique_lock<ForkSafeMutex> lock_;
  };
  Lease lease() { return Lease(*this); }

 private:
  struct State;
  // Returns the state of this process. After a fork the parent's state is left alone: its threads do not exist in the
  // child. Several threads of the child may be the first to ask.
  State& state();

  const int size_;
  std::atomic<State*> state_;
};

}  // namespace atb_core::cpu
