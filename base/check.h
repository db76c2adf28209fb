// Assertions that stay on in release. A failed check is a bug of ours: it prints where and what,
// runs the registered state dumps and aborts. Never use it for input from outside.
#pragma once

#include <fmt/format.h>
#include <functional>
#include <string>

namespace us {

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& detail);

// Adds a dump that check_failed prints before aborting (the machine registers its own). Returns a
// token; remove_state_dump(token) takes it back. Thread-safe.
int add_state_dump(std::function<std::string()> dump);
void remove_state_dump(int token);

}  // namespace us

#define US_CHECK(condition, ...)                                                         \
  do {                                                                                   \
    if (!(condition)) [[unlikely]]                                                       \
      ::us::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
  } while (0)
