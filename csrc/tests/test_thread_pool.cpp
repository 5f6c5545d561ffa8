// SPDX-License-Identifier: Apache-2.0
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

#include "atb_core/fork_safe_mutex.h"
#include "check.h"
#include "cpu/thread_pool.h"
#include "cpu/worker.h"

using atb_core::ForkGate;
using atb_core::cpu::Barrier;
using atb_core::cpu::resolve_num_threads;
using atb_core::cpu::ThreadPool;

namespace {

// Sets an environment variable for the lifetime of the object; null unsets it.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (value == nullptr) {
      unsetenv(name);
    } else {
      setenv(name, value, 1);
    }
  }
  ~Environment() { unsetenv(name_); }

 private:
  const char* name_;
};

// Every index occurs once; the caller has index 0.
bool all_take_part(ThreadPool& pool) {
  std::vector<int> seen(static_cast<size_t>(pool.size()));
  const std::thread::id caller = std::this_thread::get_id();
  bool caller_is_first = false;
  pool.lease().run([&](int index, Barrier&) {
    ++seen[static_cast<size_t>(index)];
    if (index == 0) caller_is_first = std::this_thread::get_id() == caller;
  });
  for (int count : seen) {
    if (count != 1) return false;
  }
  return caller_is_first;
}

}  // namespace

TEST(every_thread_runs_the_function_once) {
  for (int size : {1, 2, 5}) {
    ThreadPool pool(size);
    for (int i = 0; i < 50; ++i) CHECK(all_take_part(pool));
  }
}

TEST(threads_that_fell_asleep_wake_up) {
  ThreadPool pool(3);
  for (int i = 0; i < 3; ++i) {
    CHECK(all_take_part(pool));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(what_is_written_before_a_barrier_is_seen_after_it) {
  constexpr int kThreads = 4, kRounds = 300;
  ThreadPool pool(kThreads);
  std::vector<int64_t> values(kThreads, 0), sums(kThreads, 0);
  pool.lease().run([&](int index, Barrier& barrier) {
    const size_t own = static_cast<size_t>(index);
    for (int round = 1; round <= kRounds; ++round) {
      values[own] = round;
      barrier.arrive_and_wait();
      for (int64_t value : values) sums[own] += value;
      barrier.arrive_and_wait();
    }
  });
  for (int64_t sum : sums) CHECK(sum == int64_t{kThreads} * kRounds * (kRounds + 1) / 2);
}

TEST(a_barrier_waits_for_a_thread_that_is_late) {
  ThreadPool pool(2);
  int late = 0, seen = 0;
  pool.lease().run([&](int index, Barrier& barrier) {
    if (index == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      late = 1;
    }
    barrier.arrive_and_wait();
    if (index == 0) seen = late;
  });
  CHECK(seen == 1);
}

TEST(regions_of_several_callers_run_one_after_another) {
  ThreadPool pool(2);
  int inside = 0, most = 0, regions = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        pool.lease().run([&](int index, Barrier& barrier) {
          if (index == 0) most = std::max(most, ++inside);
          barrier.arrive_and_wait();
          if (index == 0) --inside, ++regions;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(most == 1);
  CHECK(regions == 150);
}

TEST(denormals_are_flushed_inside_and_only_there) {
#if defined(__x86_64__) || defined(__aarch64__)
  ThreadPool pool(2);
  volatile float tiny = std::numeric_limits<float>::min();
  std::vector<float> halves(2, -1.0f);
  pool.lease().run([&](int index, Barrier&) { halves[static_cast<size_t>(index)] = tiny * 0.5f; });
  CHECK(halves[0] == 0.0f);
  CHECK(halves[1] == 0.0f);
  volatile float half = tiny * 0.5f;
  CHECK(half > 0.0f);
#endif
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_forked_child_gets_threads_of_its_own) {
  ThreadPool pool(3);
  CHECK(all_take_part(pool));
  const pid_t child = fork();
  if (child == 0) _exit(all_take_part(pool) && all_take_part(pool) ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(all_take_part(pool));
}

// The exit status of a forked child that returns from `child`; -1 for any other end.
template <typename Child>
int status_of(Child child) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    _exit(child());
  }
  int status = -1;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Threads that begin together each run a region of the pool; returns how many could not.
int run_together(ThreadPool& pool) {
  constexpr int kThreads = 3;
  std::atomic<int> ready{0}, failed{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (++ready; ready.load() < kThreads;) std::this_thread::yield();
      if (!all_take_part(pool)) ++failed;
    });
  }
  for (std::thread& thread : threads) thread.join();
  return failed.load();
}

TEST(the_first_threads_of_a_forked_child_get_the_same_threads) {
  ThreadPool pool(2);
  CHECK(all_take_part(pool));
  for (int i = 0; i < 40; ++i) CHECK(status_of([&] { return run_together(pool); }) == 0);
}

TEST(a_fork_through_the_gate_waits_for_regions) {
  ThreadPool pool(2);
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 2; ++i) {
    callers.emplace_back([&] {
      while (!stop.load()) CHECK(all_take_part(pool));
    });
  }
  ForkGate& gate = ForkGate::instance();
  for (int i = 0; i < 40; ++i) {
    gate.close(std::chrono::seconds(30));
    const int status = status_of([&] {
      gate.open_in_child();
      return run_together(pool);
    });
    gate.open_in_parent();
    CHECK(status == 0);
  }
  stop.store(true);
  for (std::thread& caller : callers) caller.join();
}

TEST(a_child_forked_during_a_region_refuses_to_run) {
  ThreadPool pool(1);
  std::atomic<bool> inside{false}, stop{false};
  std::thread caller([&] {
    pool.lease().run(1, [&](int, Barrier&) {
      inside.store(true);
      while (!stop.load()) std::this_thread::yield();
    });
  });
  while (!inside.load()) std::this_thread::yield();
  ForkGate& gate = ForkGate::instance();
  gate.close(std::chrono::milliseconds(1));
  const int status = status_of([&] {
    gate.open_in_child();
    try {
      pool.lease();
    } catch (const atb_core::Error&) {
      return 7;
    }
    return 0;
  });
  gate.open_in_parent();
  stop.store(true);
  caller.join();
  CHECK(status == 7);
  CHECK(all_take_part(pool));
}
#endif

TEST(the_number_of_threads_comes_from_argument_then_environment) {
  const Environment none("ATB_NUM_THREADS", nullptr), no_omp("OMP_NUM_THREADS", nullptr);
  CHECK(resolve_num_threads(0) >= 1);
  const Environment omp("OMP_NUM_THREADS", "3,2");
  CHECK(resolve_num_threads(0) == 3);
  const Environment own("ATB_NUM_THREADS", "5");
  CHECK(resolve_num_threads(0) == 5);
  CHECK(resolve_num_threads(7) == 7);
}

TEST(a_bad_number_of_threads_is_an_error_that_names_the_variable) {
  for (const char* value : {"0", "-1", "two", "2x", "99999999999"}) {
    const Environment own("ATB_NUM_THREADS", value);
    CHECK_THROWS(resolve_num_threads(0), "ATB_NUM_THREADS");
  }
}

TEST(shares_cover_everything_without_overlap) {
  for (int count : {1, 2, 3, 7}) {
    for (int64_t n : {0, 1, 5, 64, 1000}) {
      int64_t next = 0;
      for (int index = 0; index < count; ++index) {
        const atb_core::cpu::Worker worker{.index = index, .count = count};
        const auto [begin, end] = worker.share(n, 16);
        CHECK(begin == next && end >= begin);
        next = end;
      }
      CHECK(next == n);
    }
  }
}

TEST_MAIN()
