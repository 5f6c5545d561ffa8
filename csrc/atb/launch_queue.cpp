// SPDX-License-Identifier: Apache-2.0
#include "atb/launch_queue.h"

#include <utility>

namespace atb_core::ascend {

LaunchQueue::LaunchQueue(std::function<void()> start) : start_(std::move(start)), thread_([this] { work(); }) {}

LaunchQueue::~LaunchQueue() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void LaunchQueue::push(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (error_) return;
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void LaunchQueue::drain() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return tasks_.empty() && !running_; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void LaunchQueue::abandon() noexcept {
  std::unique_lock lock(mutex_);
  tasks_.clear();
  changed_.wait(lock, [this] { return !running_; });
  error_ = nullptr;
}

bool LaunchQueue::failed() const {
  const std::lock_guard lock(mutex_);
  return error_ != nullptr;
}

void LaunchQueue::work() {
  std::unique_lock lock(mutex_);
  bool started = false;
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    const std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    running_ = true;
    lock.unlock();
    std::exception_ptr error;
    try {
      if (!started) start_();
      started = true;
      task();
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    running_ = false;
    if (error) {
      error_ = error;
      tasks_.clear();
    }
    changed_.notify_all();
  }
}

}  // namespace atb_core::ascend
