// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

namespace atb_core {

using Attribute = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;
using Attributes = std::map<std::string, Attribute, std::less<>>;

// An attribute that an op accepts: its name and a default of the right type.
struct AttributeSpec {
  const char* name;
  Attribute fallback;
  bool required = false;
};

// Returns every attribute of `specs`, given or by default. Throws Error if one is missing, unknown or of another type;
// an integer is accepted for a floating-point number.
Attributes checked_attributes(const std::vector<AttributeSpec>& specs, const Attributes& given);

}  // namespace atb_core
