// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "models/json.h"

namespace atb_core {

// Reads the fields of a model's JSON parameter one by one. finish() refuses fields that were not read, so that a
// misspelt field is an error and not a default. Every Error names the field.
class Parameters {
 public:
  explicit Parameters(const std::string& text);

  bool has(const std::string& name) const { return object_.contains(name); }

  bool flag(const std::string& name, bool fallback);
  int64_t integer(const std::string& name, int64_t low, int64_t high, std::optional<int64_t> fallback = {});
  double number(const std::string& name, double low, double high);
  std::string text(const std::string& name, std::string fallback);
  // Returns a list of `rows` lists of `columns` integers each; a single list counts for all rows. Empty if the field is
  // missing.
  std::vector<std::vector<int64_t>> table(const std::string& name, size_t rows, size_t columns);

  // Returns a field of any type, null if it is missing.
  const Json* find(const std::string& name);

  // Accepts a field with this value only: other values ask for something that this engine does not do.
  void only(const std::string& name, const Json& value, const std::string& why);

  // Throws Error naming the fields that were not read, and the known names that they resemble.
  void finish() const;

 private:
  const Json& need(const std::string& name);

  Json::Object object_;
  std::set<std::string> known_;
};

}  // namespace atb_core
