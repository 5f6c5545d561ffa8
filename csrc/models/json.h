// SPDX-License-Identifier: Apache-2.0
// Parses JSON as model parameters use it: strict, bounded, and with messages that give the position.
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
  // The longest text that is accepted; the limit is ATB-Models'.
  static constexpr size_t kMaxCharacters = 200'000;

  // Parses one JSON value. Throws Error with the position of a syntax error, a key that occurs twice, a number that is
  // too large, or nesting deeper than 16. A number too close to zero is 0. Strings are UTF-8.
  static Json parse(std::string_view text);

  Json() = default;
  template <typename T>
  explicit Json(T value) : value_(std::move(value)) {}

  template <typename T>
  const T* get() const {
    return std::get_if<T>(&value_);
  }
  // Returns "null", "a boolean", "an integer", "a number", "a string", "a list" or "an object".
  const char* kind() const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_ = nullptr;
};

}  // namespace atb_core
