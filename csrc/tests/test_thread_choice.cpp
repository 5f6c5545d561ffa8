// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "check.h"
#include "cpu/engine/thread_choice.h"

using atb_core::ThreadChoice;

namespace {

constexpr int kThreads = 4;
bool is_free = false;

// A machine on which a run with n threads takes times[n - 1], and more than one thread waits for half of the time.
struct Machine {
  int64_t times[kThreads];
  bool waits;

  // Runs and returns how much longer it took than with the best number of threads.
  double run(ThreadChoice& choice, int runs) const {
    int64_t total = 0;
    for (int i = 0; i < runs; ++i) {
      const int threads = choice.next();
      const int64_t time = times[threads - 1];
      total += time;
      choice.note(time, waits && threads > 1 ? time * threads / 2 : 0);
    }
    return static_cast<double>(total) / static_cast<double>(runs * *std::min_element(times, times + kThreads));
  }
};

constexpr Machine kAlone{{400, 200, 133, 100}, false}, kBusy{{400, 500, 600, 700}, true},
    kOne{{400, 200, 133, 180}, true};
constexpr Machine kUneven{{400, 200, 133, 100}, true};

}  // namespace

TEST(all_threads_run_while_none_waits) {
  ThreadChoice choice(kThreads, [] { return is_free; });
  CHECK(kAlone.run(choice, 1000) == 1);
}

TEST(fewer_threads_run_where_they_are_faster) {
  for (const Machine& machine : {kBusy, kOne}) {
    ThreadChoice choice(kThreads, [] { return is_free; });
    CHECK(machine.run(choice, 20) < 1.5);
    CHECK(machine.run(choice, 1000) < 1.03);
  }
}

TEST(what_fewer_threads_gain_is_known_without_trying_more) {
  ThreadChoice choice(kThreads, [] { return is_free; });
  is_free = false;
  kBusy.run(choice, 20);
  CHECK(choice.next() == 1);
  CHECK(kBusy.run(choice, 16) == 1);
}

TEST(threads_that_wait_are_kept_where_fewer_are_slower) {
  ThreadChoice choice(kThreads, [] { return is_free; });
  CHECK(kUneven.run(choice, 1000) < 1.02);
}

TEST(all_threads_run_again_soon_after_others_have_ended) {
  for (const bool seen : {true, false}) {
    ThreadChoice choice(kThreads, [] { return is_free; });
    is_free = false;
    kBusy.run(choice, 500);
    is_free = seen;
    kAlone.run(choice, seen ? 30 : 260);
    CHECK(choice.next() == kThreads);
  }
}

TEST(a_processor_that_is_free_for_others_only_costs_little) {
  ThreadChoice choice(kThreads, [] { return is_free; });
  is_free = true;
  CHECK(kBusy.run(choice, 1000) < 1.05);
}

TEST_MAIN()
