// SPDX-License-Identifier: Apache-2.0
// The parts that all operations of the simulator, single ones and graphs, share: states, addresses, faults, counters.
#pragma once

#include <atb/operation.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "operation_base.h"

namespace atb::sim {

using Descs = std::vector<TensorDesc>;

// A tensor of a launch: a tensor of the operation, or a part of its workspace.
struct Place {
  enum class Kind { input, output, workspace } kind;
  uint64_t number;  // of the tensor, or the offset
  TensorDesc desc;
  bool host_only = false;  // the kernel must not read the device's copy
};

struct Launch {
  std::string name;
  Kernel kernel;
  std::vector<Place> in, out;
  // An operation of others, which launches by itself, and the place of its workspace behind that of the schedule.
  Operation* foreign = nullptr;
  uint64_t workspace = 0, workspace_bytes = 0;
};

// The result of Setup, which Execute uses.
struct Schedule {
  std::vector<Launch> launches;
  uint64_t workspace = 0;
};

class SimOperation : public Operation {
 public:
  SimOperation();
  ~SimOperation() override;

  Status InferShape(const SVector<TensorDesc>& in, SVector<TensorDesc>& out) const final;
  Status Setup(const VariantPack& pack, uint64_t& workspace, Context* context) final;
  Status Execute(const VariantPack& pack, uint8_t* workspace, uint64_t workspace_size, Context* context) final;

  virtual Status infer(const Descs& in, Descs& out) const = 0;
  // Checks all that depends on shapes and host data, and returns the launches. `host[i]` is null if input i has no host
  // data.
  virtual Status schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                          Schedule& schedule) const = 0;
  // Takes an operation into a graph: afterwards it must not be destroyed or put into another graph.
  void set_owned(bool owned) { owned_ = owned; }
  bool owned() const { return owned_; }
  // Returns false if a context that prepared the operation was destroyed: its runners were part of the context.
  bool contexts_live() const;

  // Returns the outputs that have to be the memory of an input.
  virtual std::vector<std::pair<uint32_t, uint32_t>> in_place() const { return {}; }

 private:
  struct Prepared {
    Descs in, out;
    std::vector<uint64_t> host_hashes;
    Schedule schedule;
    Context* context;
    uint64_t workspace;  // as Setup returned it
  };

  Status check_counts(size_t inputs, size_t outputs) const;
  // Checks each tensor's description, at Setup.
  Status check_descs(const VariantPack& pack) const;
  // Checks sizes and addresses, at Execute.
  Status check_memory(const VariantPack& pack) const;
  Status check_outputs(const Descs& in, const Descs& out) const;
  Status check_unchanged(const Prepared& prepared, const VariantPack& pack) const;
  static Status setup_foreign(Schedule& schedule, Context* context);
  Status setup_locked(const VariantPack& pack, uint64_t& workspace, Context* context);
  Status execute_locked(const Prepared& prepared, const VariantPack& pack, uint8_t* workspace, uint64_t workspace_size,
                        Context* context) const;

  std::optional<Prepared> prepared_;
  std::set<uint64_t> contexts_;  // all that prepared it, by number
  std::atomic<bool> busy_ = false;
  bool owned_ = false;
};

// Checks a description by the rules of all operations.
Status check_desc(const std::string& who, const TensorDesc& desc);
uint64_t desc_bytes(const TensorDesc& desc);
std::string describe(const TensorDesc& desc);
// Returns the operation of the simulator, null for any other operation.
SimOperation* own_operation(Operation* operation);

}  // namespace atb::sim
