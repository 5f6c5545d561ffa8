// SPDX-License-Identifier: Apache-2.0
// JSON as model parameters use it: strict, bounded, and with messages that say where.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace atb_core {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json, std::less<>>;
  // Longer texts are no parameters (the limit is upstream's).
  static constexpr size_t kMaxCharacters = 200'000;

  // Throws Error with the position for anything that is not one JSON value: also for a key that occurs twice,
  // numbers that are too large (those too close to zero are 0), nesting deeper than 16. Strings are UTF-8.
  static Json parse(std::string_view text);

  Json() = default;
  template <typename T>
  explicit Json(T value) : value_(std::move(value)) {}

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&value_);
  }
  // "null", "a boolean", "an integer", "a number", "a string", "a list", "an object"
  const char* kind() const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_ = nullptr;
};

}  // namespace atb_core
