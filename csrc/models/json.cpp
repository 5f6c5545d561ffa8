// SPDX-License-Identifier: Apache-2.0
#include "models/json.h"

#include <charconv>

#include "atb_core/error.h"

namespace atb_core {
namespace {

constexpr int kMaxDepth = 16;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    Json value = element(0);
    skip_space();
    if (at_ < text_.size()) wrong("something follows the value");
    return value;
  }

 private:
  [[noreturn]] void wrong(const std::string& what) const { fail("JSON, character ", at_ + 1, ": ", what); }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
  }
  bool take(std::string_view token) {
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  Json element(int depth) {
    if (depth > kMaxDepth) wrong("nested too deeply");
    switch (peek()) {
      case '{':
        return object(depth);
      case '[':
        return array(depth);
      case '"':
        return Json(string());
      default:
        break;
    }
    if (take("true")) return Json(true);
    if (take("false")) return Json(false);
    if (take("null")) return Json();
    return number();
  }

  Json object(int depth) {
    Json::Object members;
    ++at_;
    while (peek() != '}') {
      if (!members.empty() && !take(",")) wrong("',' or '}' is expected");
      if (peek() != '"') wrong("a key in quotes is expected");
      std::string key = string();
      if (peek() != ':') wrong("':' is expected");
      ++at_;
      Json value = element(depth + 1);
      if (!members.emplace(key, std::move(value)).second) wrong("the key '" + key + "' occurs twice");
    }
    ++at_;
    return Json(std::move(members));
  }

  Json array(int depth) {
    Json::Array items;
    ++at_;
    while (peek() != ']') {
      if (!items.empty() && !take(",")) wrong("',' or ']' is expected");
      items.push_back(element(depth + 1));
    }
    ++at_;
    return Json(std::move(items));
  }

  std::string string() {
    std::string result;
    ++at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char c = text_[at_++];
      if (static_cast<unsigned char>(c) < 0x20) wrong("a control character in a string");
      if (c != '\\') {
        result += c;
      } else {
        result += escaped();
      }
    }
    if (!take("\"")) wrong("a string does not end");
    return result;
  }

  // Parameters are names and numbers: the escapes of plain characters are enough.
  char escaped() {
    static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    const size_t which = at_ < text_.size() ? kLetters.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) wrong("an escape that is not supported");
    ++at_;
    return kMeant[which];
  }

  Json number() {
    const size_t end = text_.find_first_not_of("+-.0123456789eE", at_);
    const std::string_view token = text_.substr(at_, end == std::string_view::npos ? end : end - at_);
    const size_t first_digit = token.starts_with('-') ? 1 : 0;
    const std::string_view digits = token.substr(first_digit);
    const bool leading_zero = digits.size() > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
    if (digits.empty() || digits[0] < '0' || digits[0] > '9' || leading_zero) wrong("a value is expected");
    if (token.find_first_of(".eE") == std::string_view::npos) return converted<int64_t>(token);
    return converted<double>(token);
  }

  template <typename T>
  Json converted(std::string_view token) {
    T value{};
    const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
    if (error == std::errc::result_out_of_range) wrong("the number is too large");
    if (error != std::errc() || end != token.data() + token.size()) wrong("a number is expected");
    at_ += token.size();
    return Json(value);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Json Json::parse(std::string_view text) {
  if (text.size() > kMaxCharacters) fail("JSON of ", text.size(), " characters; at most ", kMaxCharacters);
  return Parser(text).document();
}

const char* Json::kind() const {
  static constexpr const char* kNames[] = {"null",     "a boolean", "an integer", "a number",
                                           "a string", "a list",    "an object"};
  return kNames[value_.index()];
}

}  // namespace atb_core
