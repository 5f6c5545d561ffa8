// SPDX-License-Identifier: Apache-2.0
#include "models/json.h"

#include <algorithm>
#include <charconv>

#include "atb_core/error.h"

namespace atb_core {
namespace {

constexpr int kMaxDepth = 16;

std::string utf8(uint32_t code) {
  const auto rest = [code](int shift) { return static_cast<char>(0x80 | ((code >> shift) & 0x3F)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | (code >> 6)), rest(0)};
  if (code < 0x10000) return {static_cast<char>(0xE0 | (code >> 12)), rest(6), rest(0)};
  return {static_cast<char>(0xF0 | (code >> 18)), rest(12), rest(6), rest(0)};
}

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
      } else if (take("u")) {
        result += utf8(code_point());
      } else {
        result += escaped();
      }
    }
    if (!take("\"")) wrong("a string does not end");
    return result;
  }

  char escaped() {
    static constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    const size_t which = at_ < text_.size() ? kLetters.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) wrong("an escape that JSON does not have");
    ++at_;
    return kMeant[which];
  }

  uint32_t four_digits() {
    uint32_t value = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || end != digits.data() + 4) wrong("four hexadecimal digits are expected after \\u");
    at_ += 4;
    return value;
  }

  // Reads the digits after \u. JSON writes a character beyond 16 bits as a pair of surrogates.
  uint32_t code_point() {
    const uint32_t first = four_digits();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take("\\u")) wrong("half of a pair of \\u escapes");
    const uint32_t second = four_digits();
    if (second < 0xDC00 || second > 0xDFFF) wrong("half of a pair of \\u escapes");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  Json number() {
    for (const char* name : {"NaN", "Infinity", "-Infinity"}) {
      if (take(name)) wrong(std::string(name) + " is no JSON: numbers must be finite");
    }
    const size_t end = text_.find_first_not_of("+-.0123456789eE", at_);
    const std::string_view token = text_.substr(at_, end == std::string_view::npos ? end : end - at_);
    const size_t first_digit = token.starts_with('-') ? 1 : 0;
    const std::string_view digits = token.substr(first_digit);
    const bool leading_zero = digits.size() > 1 && digits[0] == '0' && is_digit(digits[1]);
    if (digits.empty() || !is_digit(digits[0]) || leading_zero) wrong("a value is expected");
    // from_chars() would accept "1." as a number.
    const size_t point = token.find('.');
    if (point != token.npos && (point + 1 == token.size() || !is_digit(token[point + 1]))) {
      wrong("a digit is expected after the point of a number");
    }
    if (token.find_first_of(".eE") == std::string_view::npos) return converted<int64_t>(token);
    return converted<double>(token);
  }

  template <typename T>
  Json converted(std::string_view token) {
    T value{};
    const auto [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
    if (error == std::errc::result_out_of_range && is_tiny(token)) {
      value = 0;
    } else if (error == std::errc::result_out_of_range) {
      wrong("the number is too large");
    } else if (error != std::errc()) {
      wrong("a number is expected");
    }
    if (end != token.data() + token.size()) wrong("a number is expected");
    at_ += token.size();
    return Json(value);
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  // Returns true if a number outside the range of double is too close to zero, false if it is too large. The position
  // of the first nonzero digit relative to the point, plus the exponent, decides.
  static bool is_tiny(std::string_view token) {
    const size_t letter = std::min(token.find_first_of("eE"), token.size());
    const std::string_view mantissa = token.substr(0, letter);
    const int64_t point = static_cast<int64_t>(std::min(mantissa.find('.'), mantissa.size()));
    const int64_t lead = static_cast<int64_t>(mantissa.find_first_of("123456789"));
    std::string_view digits = token.substr(std::min(letter + 1, token.size()));
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) digits.remove_prefix(1);
    int64_t exponent = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (error == std::errc::result_out_of_range) return negative;
    return point - lead + (negative ? -exponent : exponent) < 0;
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
