// SPDX-License-Identifier: Apache-2.0
// The interface of the simulator's operations.
#pragma once

#include <atb/atb_infer.h>

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace atb::sim {

// A tensor as a kernel accesses it: memory of the simulated device, mapped for the host.
struct View {
  std::byte* data;
  aclDataType dtype;
  aclFormat format;
  std::vector<int64_t> dims;
  int64_t count() const {
    int64_t n = 1;
    for (int64_t size : dims) n *= size;
    return n;
  }
};
using Views = std::vector<View>;

// Runs on the stream's thread. An exception is a failure of the stream.
using Kernel = std::function<void(const Views& in, const Views& out)>;

// The rules and the computation of an operation with these parameters. operation.h has states, addresses, faults and
// counters.
class OpRules {
 public:
  virtual ~OpRules() = default;
  virtual std::string name() const = 0;  // "LinearOperation"
  virtual uint32_t inputs() const = 0;
  virtual uint32_t outputs() const = 0;
  // Computes the shapes of outputs; `out` has the right size already.
  virtual Status infer(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const = 0;
  // Checks types, formats, shapes and limits at Setup; the numbers of tensors are right.
  virtual Status check(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out) const = 0;
  // Returns the inputs that Setup reads on the host. Kernels do not get them from the device.
  virtual std::vector<uint32_t> host_inputs() const { return {}; }
  // Reads host data and returns the code to run. `host[i]` is null if input i is not a host input.
  virtual Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out,
                         const std::vector<const int32_t*>& host, Kernel& kernel) const = 0;
  // Returns the bytes that the kernel needs for itself. ATB's amounts are not specified; only that some operations need
  // workspace.
  virtual uint64_t workspace(const std::vector<TensorDesc>& /*out*/) const { return 0; }
  // Outputs that have to be the memory of an input: (output, input).
  virtual std::vector<std::pair<uint32_t, uint32_t>> in_place() const { return {}; }
};

// Stores the reason of a status that is not NO_ERROR, for control.h's last_message().
void explain(const std::string& sentence);

// Returns the present settings of devices: "Ascend910B2", "8.5.0".
std::string soc();
std::string version();

}  // namespace atb::sim
