// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace atb_core {

// Chooses the number of threads for each run of a plan. All threads are the fastest on a machine of their own. Where
// other processes want the processors too, a thread that loses its processor holds up all others at the next barrier,
// and fewer may be faster. Whether they are is tried when threads wait for a large part of the time, and whether more
// are is tried from time to time, and soon once a processor is free. The more a trial lost, the later is the next.
class ThreadChoice {
 public:
  // Returns true if fewer threads want to run on the machine than it has processors, as far as is known.
  static bool processor_is_free();

  explicit ThreadChoice(int most, bool (*is_free)() = processor_is_free);

  // Returns the number of threads for the next run.
  int next() const { return trial_ != 0 ? trial_ : now_; }

  // Takes how long a run with next() threads took, and how long all of its threads together waited for one another,
  // except short waits.
  void note(int64_t nanoseconds, int64_t waited);

 private:
  void note_trial(double time);

  const int most_;
  bool (*const is_free_)();
  int now_, trial_ = 0;        // numbers of threads; no trial: 0
  double usual_ = 0;           // time of a run with `now_` threads
  int waits_ = 0;              // runs in sequence in which threads waited much
  int gains_ = 0;              // runs of the trial
  int runs_ = 0;               // since the last trial
  int patience_ = 0;           // runs before the next trial
  int patience_for_more_ = 0;  // the same for more threads, from what fewer gained
  int look_;                   // runs from one look for a free processor to the next
  bool looked_ = false;        // found one, which caused the trial
};

}  // namespace atb_core
