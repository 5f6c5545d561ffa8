// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace atb_core::ascend {

// Does tasks one after another on a thread of its own. After a task that throws, the rest is dropped until drain() has
// told of it.
class LaunchQueue {
 public:
  // `start` is called on the thread before the first task.
  explicit LaunchQueue(std::function<void()> start);
  ~LaunchQueue();
  LaunchQueue(const LaunchQueue&) = delete;
  LaunchQueue& operator=(const LaunchQueue&) = delete;

  void push(std::function<void()> task);
  // Waits until all is done; throws what a task has thrown.
  void drain();
  // Drops what has not begun and what has been thrown, and waits for the task that runs.
  void abandon() noexcept;
  bool failed() const;

 private:
  void work();

  std::function<void()> start_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::exception_ptr error_;
  bool running_ = false, closing_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace atb_core::ascend
