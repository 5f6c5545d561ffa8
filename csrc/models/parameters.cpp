// SPDX-License-Identifier: Apache-2.0
#include "models/parameters.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "atb_core/error.h"

namespace atb_core {
namespace {

[[noreturn]] void wrong(const std::string& name, const Json& value, const std::string& wanted) {
  fail("parameter '", name, "' is ", value.kind(), " where ", wanted, " is needed");
}

int64_t checked(const std::string& name, const Json& value, int64_t low, int64_t high) {
  const int64_t* number = value.get<int64_t>();
  if (!number) wrong(name, value, "an integer");
  if (*number < low || *number > high) {
    fail("parameter '", name, "' = ", *number, " must be from ", low, " to ", high);
  }
  return *number;
}

std::optional<double> as_number(const Json& value) {
  if (value.get<double>()) return *value.get<double>();
  if (value.get<int64_t>()) return static_cast<double>(*value.get<int64_t>());
  return std::nullopt;
}

bool equal(const Json& a, const Json& b) {
  if (a.get<bool>() && b.get<bool>()) return *a.get<bool>() == *b.get<bool>();
  if (as_number(a) && as_number(b)) return as_number(a) == as_number(b);
  return a.get<std::string>() && b.get<std::string>() && *a.get<std::string>() == *b.get<std::string>();
}

// Returns the number of letters to change, add or remove to make one word from the other.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 1, row[j] + 1, changed}));
    }
  }
  return row.back();
}

// Returns the known name that an unknown one probably misspells; empty if there is none.
std::string nearest(const std::string& name, const std::set<std::string>& known) {
  constexpr size_t kLongestName = 64;
  if (known.empty() || name.size() > kLongestName) return "";
  const auto closer = [&](const std::string& a, const std::string& b) { return distance(name, a) < distance(name, b); };
  const std::string& found = *std::min_element(known.begin(), known.end(), closer);
  return distance(name, found) <= 1 + name.size() / 5 ? found : "";
}

}  // namespace

Parameters::Parameters(const std::string& text) {
  const Json document = Json::parse(text);
  const Json::Object* object = document.get<Json::Object>();
  if (!object) fail("the parameters are ", document.kind(), " where an object is needed");
  object_ = *object;
}

const Json* Parameters::find(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() ? nullptr : &found->second;
}

const Json& Parameters::need(const std::string& name) {
  const Json* value = find(name);
  if (!value) fail("parameter '", name, "' is missing");
  return *value;
}

bool Parameters::flag(const std::string& name, bool fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (!value->get<bool>()) wrong(name, *value, "true or false");
  return *value->get<bool>();
}

int64_t Parameters::integer(const std::string& name, int64_t low, int64_t high, std::optional<int64_t> fallback) {
  const Json* value = find(name);
  return !value && fallback ? *fallback : checked(name, need(name), low, high);
}

double Parameters::number(const std::string& name, double low, double high) {
  const Json& value = need(name);
  if (!as_number(value)) wrong(name, value, "a number");
  const double number = *as_number(value);
  if (!(number >= low && number <= high)) {
    fail("parameter '", name, "' = ", number, " must be from ", low, " to ", high);
  }
  return number;
}

std::string Parameters::text(const std::string& name, std::string fallback) {
  const Json* value = find(name);
  if (!value) return fallback;
  if (!value->get<std::string>()) wrong(name, *value, "a string");
  return *value->get<std::string>();
}

std::vector<std::vector<int64_t>> Parameters::table(const std::string& name, size_t rows, size_t columns) {
  const Json* value = find(name);
  if (!value) return {};
  const Json::Array* lists = value->get<Json::Array>();
  if (!lists) wrong(name, *value, "a list of lists");
  if (lists->size() != rows && lists->size() != 1) {
    fail("parameter '", name, "' has ", lists->size(), " lists where ", rows, ", or one for all, are needed");
  }
  std::vector<std::vector<int64_t>> result;
  for (const Json& list : *lists) {
    const Json::Array* items = list.get<Json::Array>();
    if (!items) wrong(name, list, "a list of lists");
    if (items->size() != columns) {
      fail("parameter '", name, "' has a list of ", items->size(), " where ", columns, " are needed");
    }
    std::vector<int64_t>& row = result.emplace_back();
    for (const Json& item : *items) {
      // ATB-Models writes these flags as numbers or as booleans.
      row.push_back(item.get<bool>() ? int64_t{*item.get<bool>()} : checked(name, item, -1, 1 << 20));
    }
  }
  if (rows > 0) result.resize(rows, result.front());
  return result;
}

void Parameters::only(const std::string& name, const Json& value, const std::string& why) {
  const Json* given = find(name);
  if (given && !equal(*given, value)) fail("parameter '", name, "': ", why);
}

void Parameters::finish() const {
  std::string unknown;
  for (const auto& [name, value] : object_) {
    if (known_.contains(name)) continue;
    unknown += (unknown.empty() ? "'" : ", '") + name + "'";
    if (const std::string meant = nearest(name, known_); !meant.empty()) unknown += " (is '" + meant + "' meant?)";
  }
  if (!unknown.empty()) fail("unknown parameters: ", unknown, "; docs/cpp-models.md lists those that there are");
}

}  // namespace atb_core
