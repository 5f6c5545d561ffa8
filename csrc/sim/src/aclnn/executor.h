// SPDX-License-Identifier: Apache-2.0
// Tensors and executors of aclnn, and what all calls share: two phases, of which the first checks everything.
#pragma once

#include <acl/acl.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/reject.h"
#include "ops/shapes.h"

using aclnnStatus = int32_t;

// A view of memory: element i of an axis lies i * stride elements behind the first.
struct aclTensor {
  aclDataType dtype;
  aclFormat format;
  std::vector<int64_t> dims, strides, storage;
  int64_t offset;
  void* data;
};

struct aclOpExecutor;

struct aclTensorList {
  std::vector<aclTensor*> tensors;
};

namespace atb::sim {

constexpr aclnnStatus kNullPointer = 161001, kInvalid = 161002, kTiling = 561002, kUnsupported = 361001;

// Returns true if the object was made and not destroyed yet.
bool lives(const aclTensor* tensor);
bool lives(const aclTensorList* list);

bool contiguous(const aclTensor& tensor);
// Returns true for a matrix, or matrices, whose last two axes are exchanged views of rows.
bool turned(const aclTensor& tensor);
std::string describe(const aclTensor* tensor);

// The elements in the order of the view, as floats: of all types that weights and activations have.
std::vector<float> values(const aclTensor& tensor);
// The same of integers.
std::vector<int64_t> integers(const aclTensor& tensor);
// Writes a contiguous tensor, each element rounded once.
void assign(const aclTensor& tensor, const std::vector<float>& values);
void assign(const aclTensor& tensor, const std::vector<int64_t>& values);

// A plan that a first phase made. The tensors are copies: those of the caller may be gone before the kernel runs.
struct Plan {
  std::string call;
  std::vector<aclTensor> tensors;
  uint64_t workspace;
  std::function<void(const std::vector<aclTensor>& tensors)> kernel;
};

// Ends a first phase: gives the caller the workspace and an executor.
aclnnStatus planned(Plan plan, uint64_t* workspace, aclOpExecutor** executor);
// The second phase of `call`.
aclnnStatus execute(const char* call, void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream);

// Functions of each file by name, null for others.
void* executor_symbol(std::string_view name);
void* weight_quant_symbol(std::string_view name);
void* grouped_matmul_symbol(std::string_view name);
void* moe_symbol(std::string_view name);

}  // namespace atb::sim
