// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/plan.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "atb_core/error.h"
#include "cpu/engine/ops.h"
#include "graph/arena.h"

namespace atb_core {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 48;

TensorView concrete(const TensorSpec& tensor, std::span<const int64_t> sizes) {
  TensorView view{.data = nullptr, .dtype = tensor.dtype, .rank = static_cast<int>(tensor.shape.size())};
  int64_t elements = 1;
  for (size_t axis = 0; axis < tensor.shape.size(); ++axis) {
    const int64_t size = tensor.shape[axis].evaluate(sizes);
    if (size < 0) fail("dimension ", axis, " of '", tensor.name, "' would be ", size);
    if (__builtin_mul_overflow(elements, size, &elements) || elements > kMaxElements) {
      fail("'", tensor.name, "' would have more than 2^48 elements");
    }
    view.shape[axis] = size;
  }
  return view;
}

// Returns the size of every dimension for messages: " (tokens = 4, blocks = 2)".
std::string sizes_text(const Graph& graph, std::span<const int64_t> sizes) {
  std::string text;
  for (size_t i = 0; i < sizes.size(); ++i) {
    text += (i ? ", " : " (") + graph.dims()[i] + " = " + std::to_string(sizes[i]);
  }
  return sizes.empty() ? text : text + ")";
}

// Returns the offsets of the outputs in input 0 if the node need not move data. An op that copies by definition has to
// copy if either side is written in place.
std::optional<std::vector<size_t>> view_offsets(const Graph& graph, const Graph::Node& node, const CpuOp& op,
                                                const Binding& binding) {
  if (op.view == nullptr || binding.packed(0) != nullptr) return std::nullopt;
  const auto written = [&](int id) { return graph.written(id); };
  if (!node.op_signature->always_view &&
      (written(node.inputs[0]) || std::any_of(node.outputs.begin(), node.outputs.end(), written))) {
    return std::nullopt;
  }
  return op.view(binding);
}

double bytes_touched(const Binding& binding) {
  size_t bytes = 0;
  for (int i = 0; i < binding.num_inputs(); ++i) bytes += binding.in(i).bytes();
  for (int i = 0; i < binding.num_outputs(); ++i) bytes += binding.out(i).bytes();
  return static_cast<double>(bytes);
}

// Integers are indices and lengths: a kernel checks them, then uses them as addresses.
bool is_index(const TensorSpec& tensor) { return tensor.dtype == DataType::i32 || tensor.dtype == DataType::i64; }

}  // namespace

Plan::Plan(const Graph& graph, std::vector<int64_t> sizes, const WeightStore& store, const Runtime& runtime)
    : sizes_(std::move(sizes)), thread_choice_(runtime.num_threads()) {
  set_shapes(graph);
  set_weights(graph, store);
  bind(graph, runtime);
  place_outputs(graph, runtime.small_work());
  place_arena(graph);
  make_phases();
}

std::span<const int64_t> Plan::shape(int tensor) const {
  const TensorView& view = views_[static_cast<size_t>(tensor)];
  return {view.shape, static_cast<size_t>(view.rank)};
}

void Plan::set_shapes(const Graph& graph) {
  const size_t count = graph.tensors().size();
  // Twice the number of tensors: an output that shares memory gets a view of the original beside its own.
  views_.reserve(2 * count);
  for (size_t i = 0; i < count; ++i) {
    views_.push_back(concrete(graph.tensors()[i], sizes_));
    locations_.push_back({static_cast<int>(i), 0});
  }
}

void Plan::set_weights(const Graph& graph, const WeightStore& store) {
  const size_t count = graph.tensors().size();
  matrices_.resize(count);
  packed_.assign(count, nullptr);
  for (size_t i = 0; i < count; ++i) {
    if (graph.tensors()[i].kind != TensorKind::weight) continue;
    const WeightStore::Ref ref = store.ref(graph.tensors()[i].name);
    // Kernels only read weights; the type of views has no const.
    views_[i].data = const_cast<std::byte*>(ref.data);
    if (!ref.packed) continue;
    matrices_[i] = ref.matrix;
    packed_[i] = &matrices_[i];
  }
}

void Plan::bind(const Graph& graph, const Runtime& runtime) {
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Graph::Node& node = graph.nodes()[i];
    const Binding binding(node, views_, packed_, runtime.isa(), runtime.num_threads());
    try {
      const CpuOp& op = cpu_op(node.op);
      Bound bound = op.bind(binding);
      if (const auto offsets = view_offsets(graph, node, op, binding)) {
        const Location base = locations_[static_cast<size_t>(node.inputs[0])];
        for (size_t k = 0; k < node.outputs.size(); ++k) {
          locations_[static_cast<size_t>(node.outputs[k])] = {base.root, base.offset + (*offsets)[k]};
        }
        continue;
      }
      scratch_.shared = std::max(scratch_.shared, bound.scratch.shared);
      scratch_.per_thread = std::max(scratch_.per_thread, bound.scratch.per_thread);
      const double work = bound.work >= 0 ? bound.work : bytes_touched(binding);
      steps_.push_back({static_cast<int>(i), -1, std::move(bound.run), work <= runtime.small_work()});
    } catch (const Error& error) {
      fail(describe(node), sizes_text(graph, sizes_), ": ", error.what());
    }
  }
}

// Lets kernels write outputs in their final place. If an output is a view of a tensor, that whole tensor moves to the
// output's memory unless another output already uses it; otherwise the output is a copy. Integers are always copied: a
// node may read them again, as indices, while the caller can change its memory.
void Plan::place_outputs(const Graph& graph, double small_work) {
  for (size_t i = 0; i < graph.tensors().size(); ++i) {
    if (graph.tensors()[i].kind != TensorKind::output) continue;
    const int id = static_cast<int>(i);
    const bool index = is_index(graph.tensors()[i]);
    const Location original = locations_[i];
    const size_t root = static_cast<size_t>(original.root);
    if (original.root == id) {
      if (index) add_copy(id, small_work);
      continue;
    }
    if (!index && graph.tensors()[root].kind == TensorKind::internal && original.offset == 0 &&
        views_[root].bytes() == views_[i].bytes()) {
      for (Location& location : locations_) {
        if (location.root == original.root) location.root = id;
      }
      continue;
    }
    add_copy(id, small_work);
  }
}

// Adds the step that copies an output from where nodes find it into the caller's memory.
void Plan::add_copy(int output, double small_work) {
  const TensorView* from = &views_[static_cast<size_t>(output)];
  const TensorView* to = &views_.emplace_back(*from);
  locations_.push_back({output, 0, true});
  const auto copy = [from, to](const cpu::Worker& worker) { cpu::copy_bytes(*from, *to, worker); };
  steps_.push_back({-1, output, copy, static_cast<double>(2 * from->bytes()) <= small_work});
}

// Returns true for a tensor with memory in the arena: the results of nodes, except outputs that nodes write in their
// final place, and copies of inputs.
bool Plan::in_arena(const Graph& graph, int root) const {
  const TensorSpec& tensor = graph.tensor(root);
  if (tensor.kind == TensorKind::input) return is_index(tensor) && !graph.written(root);
  return tensor.kind == TensorKind::internal || (tensor.kind == TensorKind::output && is_index(tensor));
}

void Plan::place_arena(const Graph& graph) {
  std::map<int, Lifetime> roots;
  const auto touch = [&](int tensor, int step) {
    const int root = locations_[static_cast<size_t>(tensor)].root;
    if (!in_arena(graph, root)) return;
    const size_t bytes = views_[static_cast<size_t>(root)].bytes();
    // Inputs are copied before the first step.
    const int first = graph.tensor(root).kind == TensorKind::input ? 0 : step;
    const auto [found, added] = roots.try_emplace(root, Lifetime{bytes, first, step});
    found->second.last = step;
  };
  for (size_t i = 0; i < steps_.size(); ++i) {
    const int step = static_cast<int>(i);
    if (steps_[i].node < 0) {
      touch(steps_[i].tensor, step);
      continue;
    }
    const Graph::Node& node = graph.nodes()[static_cast<size_t>(steps_[i].node)];
    for (int id : node.inputs) touch(id, step);
    for (int id : node.outputs) touch(id, step);
  }

  std::vector<Lifetime> lifetimes;
  for (const auto& [root, lifetime] : roots) lifetimes.push_back(lifetime);
  const Placement placement = place(lifetimes);
  arena_bytes_ = placement.bytes;
  std::map<int, size_t> offsets;
  size_t next = 0;
  for (const auto& [root, lifetime] : roots) offsets[root] = placement.offsets[next++];

  for (size_t i = 0; i < locations_.size(); ++i) {
    const Location& location = locations_[i];
    const size_t root = static_cast<size_t>(location.root);
    if (graph.tensors()[root].kind == TensorKind::weight) {
      views_[i].data = static_cast<std::byte*>(views_[root].data) + location.offset;
    } else if (location.callers || !in_arena(graph, location.root)) {
      external_patches_.push_back({static_cast<int>(i), location.root, location.offset});
    } else if (const auto found = offsets.find(location.root); found != offsets.end()) {
      arena_patches_.push_back({static_cast<int>(i), -1, found->second + location.offset});
      const bool copied = i == root && graph.tensors()[root].kind == TensorKind::input;
      if (copied) copied_inputs_.push_back({location.root, location.root, found->second});
    }
  }
}

void Plan::make_phases() {
  for (size_t i = 0; i < steps_.size(); ++i) {
    const bool small = steps_[i].small;
    if (small && !phases_.empty() && phases_.back().small) {
      phases_.back().end = i + 1;
    } else {
      phases_.push_back({i, i + 1, small});
    }
  }
}

void Plan::attach(std::byte* arena, std::span<void* const> externals) {
  for (const Patch& patch : external_patches_) {
    views_[static_cast<size_t>(patch.tensor)].data =
        static_cast<std::byte*>(externals[static_cast<size_t>(patch.source)]) + patch.offset;
  }
  for (const Patch& copy : copied_inputs_) {
    const size_t bytes = views_[static_cast<size_t>(copy.tensor)].bytes();
    if (bytes > 0) std::memcpy(arena + copy.offset, externals[static_cast<size_t>(copy.source)], bytes);
  }
  if (arena == attached_arena_) return;
  for (const Patch& patch : arena_patches_) {
    views_[static_cast<size_t>(patch.tensor)].data = arena + patch.offset;
  }
  attached_arena_ = arena;
}

}  // namespace atb_core
