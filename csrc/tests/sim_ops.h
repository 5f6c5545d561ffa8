// SPDX-License-Identifier: Apache-2.0
// Runs an operation of the simulator with its rules and its kernel only, without device and context.
#pragma once

#include <atb/atb_infer.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"
#include "sim/control.h"

namespace atb_core::test {

using namespace ::atb;
using namespace ::atb::sim;

using Values = std::vector<double>;

// Tensor that owns its memory, made from numbers.
struct Data {
  TensorDesc desc;
  std::vector<std::byte> bytes;

  Data(aclDataType dtype, const Sizes& shape, const Values& values = {}, aclFormat format = ACL_FORMAT_ND)
      : desc(describe(dtype, shape, format)), bytes(static_cast<size_t>(product(shape)) * size_of(dtype)) {
    for (size_t i = 0; i < values.size(); ++i) put(static_cast<int64_t>(i), values[i]);
  }

  void put(int64_t i, double value) {
    if (desc.dtype == ACL_FLOAT || desc.dtype == ACL_FLOAT16 || desc.dtype == ACL_BF16) {
      const auto single = static_cast<float>(value);
      store(&single, desc.dtype, i, 1, bytes.data());
    } else {
      const auto whole = static_cast<int64_t>(value);
      const size_t size = size_of(desc.dtype);
      std::memcpy(bytes.data() + static_cast<size_t>(i) * size, &whole, size);
    }
  }

  Values values() const {
    Values out;
    for (int64_t i = 0; i < elements(desc); ++i) {
      const bool is_float = desc.dtype == ACL_FLOAT || desc.dtype == ACL_FLOAT16 || desc.dtype == ACL_BF16;
      out.push_back(is_float ? static_cast<double>(load_one(bytes.data(), desc.dtype, i))
                             : static_cast<double>(load_integer(bytes.data(), desc.dtype, i)));
    }
    return out;
  }

  View view() { return {bytes.data(), desc.dtype, desc.format, sizes(desc)}; }
};

struct Result {
  Status status = NO_ERROR;
  std::vector<Data> out;
};

template <typename Param>
Status create(const Param& param) {
  std::unique_ptr<OpRules> rules;
  return make_rules(param, rules);
}

// Runs CreateOperation to Execute in the order of one stream. Outputs in place start with the values of their inputs.
template <typename Param>
Result run(const Param& param, std::vector<Data> in, const std::vector<TensorDesc>& given = {}) {
  std::unique_ptr<OpRules> rules;
  Result result{.status = make_rules(param, rules), .out = {}};
  if (result.status != NO_ERROR) return result;
  if (rules->inputs() != in.size()) return {.status = ERROR_INVALID_TENSOR_NUM, .out = {}};
  std::vector<TensorDesc> descs, outs(rules->outputs());
  std::vector<const int32_t*> host(in.size(), nullptr);
  for (const Data& x : in) descs.push_back(x.desc);
  for (uint32_t i : rules->host_inputs()) host[i] = reinterpret_cast<const int32_t*>(in[i].bytes.data());
  if (result.status = rules->infer(descs, outs); result.status != NO_ERROR) return result;
  if (!given.empty()) outs = given;
  if (result.status = rules->check(descs, outs); result.status != NO_ERROR) return result;
  Kernel kernel;
  if (result.status = rules->prepare(descs, outs, host, kernel); result.status != NO_ERROR) return result;
  for (const TensorDesc& desc : outs) result.out.emplace_back(desc.dtype, sizes(desc), Values{}, desc.format);
  for (const auto& [to, from] : rules->in_place()) result.out[to].bytes = in[from].bytes;
  rules.reset();  // a kernel outlives its operation
  Views x, y;
  for (Data& data : in) x.push_back(data.view());
  for (Data& data : result.out) y.push_back(data.view());
  kernel(x, y);
  if (y.empty()) result.out.push_back(in[0]);
  return result;
}

inline bool close(const Values& a, const Values& b, double tolerance = 1e-6) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i) same = std::fabs(a[i] - b[i]) <= tolerance * (1.0 + std::fabs(b[i]));
  return same;
}

inline bool says(const std::string& part) { return last_message().find(part) != std::string::npos; }

// Numbers without a pattern between -1 and 1, exact in bfloat16.
inline Values some(int64_t count, int seed = 1) {
  Values out;
  for (int64_t i = 0; i < count; ++i) out.push_back(static_cast<double>((i * 37 + seed * 53) % 65 - 32) / 32.0);
  return out;
}

inline Values filled(int64_t count, double value) { return Values(static_cast<size_t>(count), value); }

// Sets the SoC for one test.
struct Soc {
  explicit Soc(const char* name) { set_soc(name); }
  ~Soc() { set_soc("Ascend910B2"); }
};

// Sets the number of devices for one test.
struct Devices {
  explicit Devices(uint32_t count) { set_devices(count); }
  ~Devices() { set_devices(1); }
};

// [rows, columns] -> NZ [1, columns / 16, rows, 16].
inline Values fractal(const Values& x, size_t rows, size_t columns) {
  Values out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t r = i / columns, c = i % columns;
    out[(c / 16 * rows + r) * 16 + c % 16] = x[i];
  }
  return out;
}

inline Values turned(const Values& x, size_t rows, size_t columns) {
  Values out(x.size());
  for (size_t i = 0; i < x.size(); ++i) out[i % columns * rows + i / columns] = x[i];
  return out;
}

inline Values slice_of(const Values& x, size_t begin, size_t count) {
  return {x.begin() + static_cast<int64_t>(begin), x.begin() + static_cast<int64_t>(begin + count)};
}

}  // namespace atb_core::test
