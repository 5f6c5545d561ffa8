// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/runtime.h"

#include <algorithm>

#include "atb_core/error.h"
#include "cpu/kernels/prefetch_choice.h"

namespace atb_core {
namespace {

void grow(Buffer& buffer, size_t bytes) {
  if (buffer.bytes() >= bytes) return;
  buffer = Buffer();  // frees first: the memory may be needed, its content is not
  buffer = Buffer(bytes);
}

}  // namespace

Runtime::Runtime(int num_threads, cpu::Isa isa, double small_work)
    : isa_(isa), pool_(num_threads), small_work_(small_work) {
  if (!cpu::supported(isa)) fail("instruction set level ", name(isa), " is not available on this machine");
  static_cast<void>(cpu::prefetch_choice());  // an impossible setting is an error now, not in a thread later
}

size_t Runtime::prefetch_ahead() const { return cpu::prefetch_choice().ahead(); }

Runtime::Workspace Runtime::workspace(const cpu::ThreadPool::Lease&, size_t arena, cpu::ScratchSize scratch) {
  // One line apart, so that threads do not write to one cache line.
  const size_t stride = align_up(scratch.per_thread) + kAlignment;
  // Never empty: a tensor without bytes gets a valid address, too.
  grow(arena_, std::max(arena, kAlignment));
  grow(shared_, std::max(scratch.shared, kAlignment));
  grow(scratch_, stride * static_cast<size_t>(num_threads()));
  return {arena_.data(), shared_.data(), scratch_.data(), stride};
}

}  // namespace atb_core
