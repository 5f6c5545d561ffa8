// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/thread_choice.h"

#include <algorithm>
#include <fstream>
#include <thread>

namespace atb_core {
namespace {

// Part of a new value in the usual one.
constexpr double kNew = 0.25;
// In a decode step, threads that share no processor with other processes wait for a hundredth of their time, beside one
// busy process for two fifths.
constexpr double kWaiting = 0.2;
constexpr int kWaits = 2;
// What more threads have to gain, because runs beside other processes differ, and in how many runs in sequence: a thread
// that slept is preferred by the system at first.
constexpr double kGain = 0.95;
constexpr int kMoreGains = 5, kFewerGains = 2;
// The share of the time that trials take, unless they come again after kMostPatience.
constexpr double kTrials = 0.01;
constexpr int kLeastPatience = 12, kMostPatience = 200;
// Runs until the first look for a free processor: a thread that was held up for a moment must not cost a dozen runs.
constexpr int kLeastLook = 2;

// Returns the runs before a trial of a number of threads with which a run takes so much longer.
int patience_for(double lost) { return std::clamp(static_cast<int>(lost / kTrials), kLeastPatience, kMostPatience); }

}  // namespace

ThreadChoice::ThreadChoice(int most, bool (*is_free)())
    : most_(most), is_free_(is_free), now_(most), look_(kLeastLook) {}

bool ThreadChoice::processor_is_free() {
  // "0.31 0.29 0.20 2/96 4711": two threads want to run.
  std::ifstream file("/proc/loadavg");
  double minutes[3];
  unsigned running = 0;
  file >> minutes[0] >> minutes[1] >> minutes[2] >> running;
  return running > 0 && running < std::thread::hardware_concurrency();
}

void ThreadChoice::note(int64_t nanoseconds, int64_t waited) {
  if (most_ == 1) return;
  const auto time = static_cast<double>(nanoseconds);
  if (trial_ != 0) return note_trial(time);
  const bool waits = static_cast<double>(waited) > kWaiting * time * now_;
  // Runs with long waits and without are not mixed.
  usual_ = waits == (waits_ > 0) && usual_ > 0 ? usual_ + kNew * (time - usual_) : time;
  waits_ = waits ? waits_ + 1 : 0;
  ++runs_;
  if (now_ > 1 && waits_ >= kWaits && runs_ >= patience_) {
    trial_ = now_ - 1;
  } else if (now_ < most_) {
    const bool due = runs_ >= std::max({patience_, patience_for_more_, kLeastPatience});
    looked_ = !due && runs_ % look_ == 0 && is_free_();
    if (due || looked_) trial_ = now_ + 1;
  }
}

void ThreadChoice::note_trial(double time) {
  const bool gains = time < usual_ * (trial_ > now_ ? kGain : 1);
  if (gains && ++gains_ < (trial_ > now_ ? kMoreGains : kFewerGains)) return;
  // The threads of other machines on the same processors are not seen.
  if (looked_) look_ = gains ? kLeastLook : std::min(2 * look_, kMostPatience);
  looked_ = false;
  patience_ = gains ? 0 : patience_for(time / usual_ - 1);
  if (gains) {
    patience_for_more_ = trial_ < now_ ? patience_for(usual_ / time - 1) : 0;
    now_ = trial_;
    usual_ = time;
    waits_ = 0;
  }
  trial_ = runs_ = gains_ = 0;
}

}  // namespace atb_core
