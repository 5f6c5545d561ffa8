// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "operation_base.h"
#include "state.h"
#include "stream.h"

namespace atb {
namespace sim {
namespace {

class SimContext : public Context {
 public:
  Status SetExecuteStream(aclrtStream stream) override {
    ATB_SIM_CALL("Context::SetExecuteStream");
    if (!is_stream(stream)) {
      explain("Context::SetExecuteStream: there is no such stream");
      return ERROR_INVALID_STREAM;
    }
    stream_ = stream;
    return NO_ERROR;
  }
  aclrtStream GetExecuteStream() const override { return stream_; }
  Status SetAsyncTilingCopyStatus(bool enable) override {
    async_tiling_ = enable;
    return NO_ERROR;
  }
  bool GetAsyncTilingCopyStatus() const override { return async_tiling_; }

 private:
  aclrtStream stream_ = nullptr;
  bool async_tiling_ = false;
};

std::mutex g_mutex;

// The contexts that live, each with its number: an address may come again.
std::map<Context*, uint64_t>& contexts() {
  static auto* const kContexts = new std::map<Context*, uint64_t>;
  return *kContexts;
}

uint64_t g_made = 0;

}  // namespace

uint64_t context_number(Context* context) {
  const std::lock_guard lock(g_mutex);
  const auto found = contexts().find(context);
  return found == contexts().end() ? 0 : found->second;
}

bool context_lives(uint64_t number) {
  const std::lock_guard lock(g_mutex);
  return std::any_of(contexts().begin(), contexts().end(), [&](const auto& one) { return one.second == number; });
}

Status check_context(Context* context, const std::string& who) {
  {
    const std::lock_guard lock(g_mutex);
    if (!contexts().contains(context)) {
      explain(who + ": there is no such context, or it was destroyed");
      return ERROR_INVALID_CONTEXT_ADDR;
    }
  }
  if (is_stream(context->GetExecuteStream())) return NO_ERROR;
  explain(who + ": the context's stream was never set, or was destroyed");
  return ERROR_INVALID_STREAM;
}

}  // namespace sim

Status CreateContext(Context** context) {
  ATB_SIM_CALL("CreateContext");
  if (context == nullptr) {
    sim::explain("CreateContext: context is null");
    return ERROR_INVALID_PARAM;
  }
  *context = new sim::SimContext;
  const std::lock_guard lock(sim::g_mutex);
  sim::contexts().emplace(*context, ++sim::g_made);
  sim::account([](sim::Counters& now) { ++now.live_contexts; });
  return NO_ERROR;
}

Status DestroyContext(Context* context) {
  bool known = false;
  {
    const std::lock_guard lock(sim::g_mutex);
    known = sim::contexts().erase(context) > 0;
  }
  if (known) {
    delete context;
    sim::account([](sim::Counters& now) { --now.live_contexts; });
  }
  ATB_SIM_CALL("DestroyContext");
  if (known) return NO_ERROR;
  sim::explain("DestroyContext: there is no such context");
  return ERROR_INVALID_CONTEXT_ADDR;
}

}  // namespace atb
