// SPDX-License-Identifier: Apache-2.0
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/kernels/prefetch_choice.h"

using atb_core::cpu::PrefetchChoice;
using atb_core::cpu::PrefetchTrial;

namespace {

constexpr size_t kBytes = PrefetchChoice::kLeastBytes;
constexpr auto kCount = static_cast<uint32_t>(PrefetchChoice::kDistances.size());

// Runs tasks, of which those with the distance `fast` take `ratio` of the time of others, and each eighth waits.
void run(PrefetchChoice& choice, uint32_t fast, double ratio) {
  for (int i = 0; i < 10000 && !choice.is_made(); ++i) {
    const uint32_t index = choice.next();
    CHECK(index < kCount);
    choice.note(index, kBytes, static_cast<int64_t>((i % 8 == 0 ? 90000 : 10000) * (index == fast ? ratio : 1)));
  }
  CHECK(choice.is_made());
}

}  // namespace

TEST(the_fastest_distance_is_kept) {
  for (uint32_t fast = 0; fast < kCount; ++fast) {
    PrefetchChoice choice;
    run(choice, fast, 0.8);
    CHECK(choice.ahead() == PrefetchChoice::kDistances[fast]);
  }
}

TEST(one_that_is_little_faster_changes_nothing) {
  PrefetchChoice choice;
  run(choice, 4, 0.98);
  CHECK(choice.ahead() == PrefetchChoice::kDistances[0]);
}

TEST(a_fixed_distance_is_never_measured) {
  PrefetchChoice choice(0);
  CHECK(choice.is_made());
  CHECK(choice.ahead() == 0);
  CHECK(PrefetchTrial(choice, kBytes).ahead() == 0);
}

TEST(short_tasks_are_no_trials) {
  PrefetchChoice choice;
  for (int i = 0; i < 10000; ++i) CHECK(PrefetchTrial(choice, kBytes - 1).ahead() == PrefetchChoice::kDistances[0]);
  CHECK(!choice.is_made());
}

TEST(threads_choose_together) {
  PrefetchChoice choice;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      while (!choice.is_made()) {
        const uint32_t index = choice.next();
        choice.note(index, kBytes, index == 2 ? 5000 : 10000);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(choice.ahead() == PrefetchChoice::kDistances[2]);
}

TEST_MAIN()
