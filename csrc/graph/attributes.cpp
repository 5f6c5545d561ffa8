// SPDX-License-Identifier: Apache-2.0
#include "graph/attributes.h"

#include <algorithm>

#include "atb_core/error.h"

namespace atb_core {
namespace {

const char* type_name(const Attribute& value) {
  constexpr const char* kNames[] = {"bool", "int", "float", "str", "list[int]"};
  return kNames[value.index()];
}

}  // namespace

Attributes checked_attributes(const std::vector<AttributeSpec>& specs, const Attributes& given) {
  Attributes result;
  for (const AttributeSpec& spec : specs) {
    const auto found = given.find(spec.name);
    if (found == given.end()) {
      if (spec.required) fail("attribute '", spec.name, "' is missing");
      result.emplace(spec.name, spec.fallback);
    } else if (found->second.index() == spec.fallback.index()) {
      result.emplace(spec.name, found->second);
    } else if (std::holds_alternative<double>(spec.fallback) && std::holds_alternative<int64_t>(found->second)) {
      result.emplace(spec.name, static_cast<double>(std::get<int64_t>(found->second)));
    } else {
      fail("attribute '", spec.name, "' must be ", type_name(spec.fallback), ", not ", type_name(found->second));
    }
  }
  for (const auto& [name, value] : given) {
    const bool known = std::any_of(specs.begin(), specs.end(), [&](const auto& spec) { return name == spec.name; });
    if (!known) fail("attribute '", name, "' is unknown");
  }
  return result;
}

}  // namespace atb_core
