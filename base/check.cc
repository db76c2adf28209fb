#include "base/check.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace us {
namespace {

struct Dumps {
  std::mutex mutex;
  std::map<int, std::function<std::string()>> by_token;
  int next_token = 1;
};

Dumps& dumps() {
  static Dumps instance;
  return instance;
}

}  // namespace

int add_state_dump(std::function<std::string()> dump) {
  std::lock_guard lock(dumps().mutex);
  const int token = dumps().next_token++;
  dumps().by_token.emplace(token, std::move(dump));
  return token;
}

void remove_state_dump(int token) {
  std::lock_guard lock(dumps().mutex);
  dumps().by_token.erase(token);
}

void check_failed(const char* condition, const char* file, int line, const std::string& detail) {
  std::fprintf(stderr, "bug: check failed: %s\n  at %s:%d\n  %s\n", condition, file, line,
               detail.c_str());
  // A dump that itself fails a check must not recurse: take the table first.
  static bool dumping = false;
  if (!dumping) {
    dumping = true;
    for (auto& [token, dump] : dumps().by_token) std::fprintf(stderr, "%s\n", dump().c_str());
  }
  std::fflush(stderr);
  std::abort();
}

}  // namespace us
