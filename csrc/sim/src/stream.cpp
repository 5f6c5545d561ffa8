// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "state.h"

namespace atb::sim {
namespace {

class Stream {
 public:
  Stream() : thread_([this] { work(); }) {}
  ~Stream() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void push(Task task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
  }

  aclError wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return tasks_.empty() && !running_; });
    return std::exchange(error_, ACL_SUCCESS);
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return closing_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      const Task task = std::move(tasks_.front());
      tasks_.pop_front();
      if (error_ != ACL_SUCCESS) {
        if (tasks_.empty()) changed_.notify_all();
        continue;
      }
      running_ = true;
      lock.unlock();
      const aclError status = task();
      lock.lock();
      running_ = false;
      if (error_ == ACL_SUCCESS) error_ = status;
      if (tasks_.empty() || error_ != ACL_SUCCESS) changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  aclError error_ = ACL_SUCCESS;
  bool running_ = false, closing_ = false;
  std::thread thread_;
};

std::mutex g_mutex;

// Never destroyed: a process may end with streams that nobody has closed.
std::map<aclrtStream, std::shared_ptr<Stream>>& streams() {
  static auto* const kStreams = new std::map<aclrtStream, std::shared_ptr<Stream>>;
  return *kStreams;
}

std::shared_ptr<Stream> find(aclrtStream handle) {
  const std::lock_guard lock(g_mutex);
  const auto found = streams().find(handle);
  return found == streams().end() ? nullptr : found->second;
}

}  // namespace

aclrtStream create_stream() {
  auto made = std::make_shared<Stream>();
  const std::lock_guard lock(g_mutex);
  streams().emplace(made.get(), made);
  account([](Counters& now) { ++now.live_streams; });
  return made.get();
}

bool is_stream(aclrtStream stream) { return find(stream) != nullptr; }

bool destroy_stream(aclrtStream stream) {
  const std::shared_ptr<Stream> found = find(stream);
  if (!found) return false;
  {
    const std::lock_guard lock(g_mutex);
    streams().erase(stream);
  }
  found->wait();
  account([](Counters& now) { --now.live_streams; });
  return true;
}

bool enqueue(aclrtStream stream, Task task) {
  const std::shared_ptr<Stream> found = find(stream);
  if (found) found->push(std::move(task));
  return found != nullptr;
}

aclError synchronize(aclrtStream stream) {
  const std::shared_ptr<Stream> found = find(stream);
  return found ? found->wait() : ACL_ERROR_RT_STREAM_CONTEXT;
}

}  // namespace atb::sim
