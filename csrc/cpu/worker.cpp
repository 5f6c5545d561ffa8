// SPDX-License-Identifier: Apache-2.0
#include "cpu/worker.h"

#include <cstring>

namespace atb_core::cpu {

void ErrorSlot::report(std::string_view text) {
  if (taken_.exchange(true, std::memory_order_acq_rel)) return;
  const size_t length = std::min(text.size(), sizeof(text_) - 1);
  std::memcpy(text_, text.data(), length);
  text_[length] = '\0';
  report_ = {text_, -1, 0, 0};
}

std::string ErrorSlot::message() const {
  if (report_.what == text_) return text_;
  const auto number = [](int64_t value) { return std::to_string(value); };
  return std::string(report_.what) + " (value " + number(report_.value) + ", position " + number(report_.position) +
         ", limit " + number(report_.limit) + ")";
}

}  // namespace atb_core::cpu
