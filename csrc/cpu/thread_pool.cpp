// SPDX-License-Identifier: Apache-2.0
#include "cpu/thread_pool.h"

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "atb_core/error.h"

namespace atb_core::cpu {
namespace {

constexpr int kMaxThreads = 1024;

int available_processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Returns the number in an environment variable, 0 if it is not set. OMP_NUM_THREADS may be a list with a number for
// each nesting level ("4,2"): the first one counts.
int threads_from_environment(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return 0;
  const std::string_view text(value, std::strcspn(value, ","));
  int threads = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), threads);
  if (status != std::errc() || end != text.data() + text.size() || threads < 1) {
    fail(variable, "=", value, " is not a positive number of threads");
  }
  return threads;
}

}  // namespace

int resolve_num_threads(int requested) {
  if (requested > kMaxThreads) fail("num_threads=", requested, " is more than ", kMaxThreads);
  if (requested > 0) return requested;
  for (const char* variable : {"ATB_NUM_THREADS", "OMP_NUM_THREADS"}) {
    if (const int threads = threads_from_environment(variable); threads > 0) return std::min(threads, kMaxThreads);
  }
  return std::min(available_processors(), kMaxThreads);
}

struct ThreadPool::State {
  explicit State(int size) : barrier(size), pid(getpid()) {
    threads.reserve(static_cast<size_t>(size - 1));
    try {
      for (int index = 1; index < size; ++index) threads.emplace_back([this, index] { work(index); });
    } catch (const std::system_error& error) {
      const size_t started = threads.size() + 1;
      end_threads();
      fail("the system gives ", started, " threads where ", size, " are wanted: ", error.what());
    }
  }

  ~State() { end_threads(); }

  void end_threads() {
    stop.store(true, std::memory_order_relaxed);
    announce(0);
    for (std::thread& thread : threads) thread.join();
  }

  // Begins a region of the first `count` threads.
  void announce(int count) {
    const uint32_t number = epoch.load(std::memory_order_relaxed) / kCounts + 1;
    epoch.store(number * kCounts + static_cast<uint32_t>(count), std::memory_order_release);
    epoch.notify_all();
  }

  void work(int index) {
    const FlushDenormals flush;
    uint32_t seen = 0;
    while (true) {
      seen = await_change(seen);
      if (stop.load(std::memory_order_relaxed)) return;
      // Nobody waits for the others, so that the next region may begin at any time.
      if (index >= static_cast<int>(seen % kCounts)) continue;
      fn(context, index, barrier);
      barrier.arrive_and_wait();
    }
  }

  // Waits for the next region: spins for about 100 us, since the caller usually returns sooner between small regions,
  // then sleeps. Yields between short bursts: the thread that starts the next region may need this processor.
  uint32_t await_change(uint32_t seen) const {
    constexpr auto kPatience = std::chrono::microseconds(100);
    constexpr int kBurst = 64;
    const auto start = std::chrono::steady_clock::now();
    do {
      for (int i = 0; i < kBurst; ++i) {
        if (const uint32_t now = epoch.load(std::memory_order_acquire); now != seen) return now;
        spin_pause();
      }
      std::this_thread::yield();
    } while (std::chrono::steady_clock::now() - start < kPatience);
    uint32_t now;
    while ((now = epoch.load(std::memory_order_acquire)) == seen) epoch.wait(seen, std::memory_order_acquire);
    return now;
  }

  Barrier barrier;
  const pid_t pid;
  ForkSafeMutex mutex;
  // The number of the region, and how many threads take part in it.
  static constexpr uint32_t kCounts = 2 * kMaxThreads;
  alignas(kAlignment) std::atomic<uint32_t> epoch{0};
  std::atomic<bool> stop{false};
  void (*fn)(void*, int, Barrier&) = nullptr;
  void* context = nullptr;
  std::vector<std::thread> threads;
};

ThreadPool::ThreadPool(int num_threads) : size_(num_threads), state_(new State(num_threads)) {}

ThreadPool::~ThreadPool() {
  // In a forked child there is nothing to join: the threads exist in the parent only.
  if (State* const last = state_.load(); last->pid == getpid()) delete last;
}

ThreadPool::State& ThreadPool::state() {
  State* current = state_.load(std::memory_order_acquire);
  if (current->pid == getpid()) return *current;
  // The parent's state may be locked or half updated at the moment of the fork, so it is left as it is.
  auto made = std::make_unique<State>(size_);
  return state_.compare_exchange_strong(current, made.get()) ? *made.release() : *current;
}

ThreadPool::Lease::Lease(ThreadPool& pool) : pool_(pool), lock_(pool.state().mutex) {}

int64_t ThreadPool::Lease::run_raw(int count, void (*fn)(void*, int, Barrier&), void* context) {
  State& state = *pool_.state_.load(std::memory_order_acquire);
  const FlushDenormals flush;
  state.barrier.set_count(count);
  if (count > 1) {
    state.fn = fn;
    state.context = context;
    state.announce(count);
  }
  fn(context, 0, state.barrier);
  state.barrier.arrive_and_wait();
  return state.barrier.take_waited();
}

}  // namespace atb_core::cpu
