// SPDX-License-Identifier: Apache-2.0
// What the operations of the simulator are made of.
#pragma once

#include <atb/atb_infer.h>

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace atb::sim {

// A tensor as a kernel may touch it: memory of the simulated device, in reach of the host.
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

// Runs on the stream's thread. What it throws is a failure of the stream.
using Kernel = std::function<void(const Views& in, const Views& out)>;

// What an operation with these parameters demands and does. States, addresses, faults and accounts are not its
// business: see operation.h.
class OpRules {
 public:
  virtual ~OpRules() = default;
  virtual std::string name() const = 0;  // "LinearOperation"
  virtual uint32_t inputs() const = 0;
  virtual uint32_t outputs() const = 0;
  // The shape rule; `out` has the right size already.
  virtual Status infer(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const = 0;
  // What Setup checks of types, formats, shapes and limits; the numbers of tensors are right.
  virtual Status check(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out) const = 0;
  // Inputs that Setup reads on the host. Kernels do not get them from the device.
  virtual std::vector<uint32_t> host_inputs() const { return {}; }
  // Reads host data and gives the code to run. `host[i]` is null where input i is no host input.
  virtual Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>& out,
                         const std::vector<const int32_t*>& host, Kernel& kernel) const = 0;
  // Bytes that the kernel wants for itself. ATB's amounts are nobody's business and change; that there are some is.
  virtual uint64_t workspace(const std::vector<TensorDesc>& /*out*/) const { return 0; }
  // Outputs that have to be the memory of an input: (output, input).
  virtual std::vector<std::pair<uint32_t, uint32_t>> in_place() const { return {}; }
};

// Notes why the next status that is returned is not NO_ERROR: control.h's last_message().
void explain(const std::string& sentence);

// What devices are now: "Ascend910B2", "8.5.0".
std::string soc();
std::string version();

}  // namespace atb::sim
