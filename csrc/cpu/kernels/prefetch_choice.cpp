// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/prefetch_choice.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "atb_core/error.h"

namespace atb_core::cpu {
namespace {

constexpr int64_t kMost = 64 << 10, kLine = 64;

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Returns the distance of the environment variable, -1 if it is not set.
int64_t distance_from_environment() {
  const char* value = std::getenv("ATB_PREFETCH_AHEAD");
  if (value == nullptr || *value == '\0') return -1;
  int64_t bytes = 0;
  const char* end = value + std::strlen(value);
  const auto [rest, status] = std::from_chars(value, end, bytes);
  if (status != std::errc() || rest != end || bytes < 0 || bytes > kMost || bytes % kLine != 0) {
    fail("ATB_PREFETCH_AHEAD=", value, " is not a number of bytes up to ", kMost, " and a multiple of ", kLine);
  }
  return bytes;
}

}  // namespace

PrefetchChoice::PrefetchChoice(int64_t fixed)
    : ahead_(fixed < 0 ? kDistances[0] : static_cast<size_t>(fixed)), made_(fixed >= 0) {}

uint32_t PrefetchChoice::next() {
  // The tasks of a step come in the same order again and again: taken one after another, the same distance would meet
  // the same matrices. Multiplied by this odd number the upper bits change as if by chance (Knuth's multiplicative hash).
  const uint32_t mixed = turn_.fetch_add(1, std::memory_order_relaxed) * 2654435761U;
  return static_cast<uint32_t>(uint64_t{mixed} * kDistances.size() >> 32);
}

void PrefetchChoice::note(uint32_t index, size_t bytes, int64_t nanoseconds) {
  const uint32_t place = counts_[index].fetch_add(1, std::memory_order_relaxed);
  if (place >= kSamples) return;
  const float rate = static_cast<float>(bytes) / static_cast<float>(std::max<int64_t>(1, nanoseconds));
  rates_[index][place].store(rate, std::memory_order_relaxed);
  // Whoever brings the last sample sees those of all others.
  if (noted_.fetch_add(1, std::memory_order_acq_rel) + 1 == kSamples * kDistances.size()) choose();
}

void PrefetchChoice::choose() {
  std::array<float, kDistances.size()> medians{};
  for (size_t i = 0; i < medians.size(); ++i) {
    std::array<float, kSamples> rates;
    std::copy(rates_[i].begin(), rates_[i].end(), rates.begin());
    std::nth_element(rates.begin(), rates.begin() + kSamples / 2, rates.end());
    medians[i] = rates[kSamples / 2];
  }
  const auto best = std::max_element(medians.begin(), medians.end());
  if (static_cast<double>(*best) > kClearly * static_cast<double>(medians[0])) {
    ahead_.store(kDistances[static_cast<size_t>(best - medians.begin())], std::memory_order_relaxed);
  }
  made_.store(true, std::memory_order_relaxed);
}

PrefetchChoice& prefetch_choice() {
  static PrefetchChoice choice(distance_from_environment());
  return choice;
}

PrefetchTrial::PrefetchTrial(PrefetchChoice& choice, size_t bytes)
    : choice_(choice), bytes_(bytes), ahead_(choice.ahead()) {
  if (choice.is_made() || bytes < PrefetchChoice::kLeastBytes) return;
  index_ = choice.next();
  ahead_ = PrefetchChoice::kDistances[index_];
  begin_ = now();
}

PrefetchTrial::~PrefetchTrial() {
  if (begin_ != 0) choice_.note(index_, bytes_, now() - begin_);
}

}  // namespace atb_core::cpu
