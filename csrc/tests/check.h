// SPDX-License-Identifier: Apache-2.0
// A unit test framework in one page: TEST(name) { CHECK(...); CHECK_THROWS(..., "part of message"); }
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#endif

namespace atb_core::test {

using Case = std::pair<const char*, void (*)()>;

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline int failures = 0;

struct Register {
  Register(const char* name, void (*run)()) { cases().emplace_back(name, run); }
};

inline void report(const char* file, int line, const std::string& text) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, text.c_str());
  ++failures;
}

// Runs the cases that the arguments name, by default all.
inline int run_all(int argc, char** argv) {
  for (const auto& [name, run] : cases()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted = wanted || name == std::string(argv[i]);
    if (!wanted) continue;
    const int before = failures;
    try {
      run();
    } catch (const std::exception& e) {
      report(name, 0, std::string("unexpected exception: ") + e.what());
    }
    std::printf("%s %s\n", failures == before ? "ok  " : "FAIL", name);
  }
  return failures == 0 ? 0 : 1;
}

// Disables leak detection for allocations during the lifetime of this object.
struct LeaksAllowed {
#if defined(__SANITIZE_ADDRESS__)
  LeaksAllowed() { __lsan_disable(); }
  ~LeaksAllowed() { __lsan_enable(); }
#else
  LeaksAllowed() {}
#endif
};

}  // namespace atb_core::test

#define TEST(name)                                                             \
  static void test_##name();                                                   \
  static const ::atb_core::test::Register register_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition)) ::atb_core::test::report(__FILE__, __LINE__, "CHECK failed: " #condition); \
  } while (false)

#define CHECK_THROWS(expression, part)                                                                              \
  do {                                                                                                              \
    std::string message_;                                                                                           \
    bool threw_ = false;                                                                                            \
    try {                                                                                                           \
      (void)(expression);                                                                                           \
    } catch (const std::exception& e_) {                                                                            \
      threw_ = true;                                                                                                \
      message_ = e_.what();                                                                                         \
    }                                                                                                               \
    if (!threw_) ::atb_core::test::report(__FILE__, __LINE__, "no exception: " #expression);                        \
    if (threw_ && message_.find(part) == std::string::npos)                                                         \
      ::atb_core::test::report(__FILE__, __LINE__, "message '" + message_ + "' lacks '" + std::string(part) + "'"); \
  } while (false)

#define TEST_MAIN() \
  int main(int argc, char** argv) { return ::atb_core::test::run_all(argc, argv); }
