#include "tools/talk.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace us::tools {

int report(const UserError& error) {
  fmt::print(stderr, "{}\n", error.text());
  return static_cast<int>(error.exit_code);
}

int finish(const Globals& globals, const Outcome& outcome, const hv::ExecutionPoint& point,
           const std::string& artifacts) {
  if (!globals.quiet || outcome.code != ExitCode::kDone) {
    fmt::print(stderr, "understudy: {}; at branch {} (instruction {}){}\n", outcome.text,
               point.branches.value, point.instructions.value,
               artifacts.empty() ? "" : "; " + artifacts);
  }
  return static_cast<int>(outcome.code);
}

Status write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.flush();
  if (file) return Done{};
  return UserError{.id = "OUT-001",
                   .exit_code = ExitCode::kHostCannot,
                   .what = "cannot write " + path,
                   .seen = std::strerror(errno),
                   .needed = "a path that can be written and free space",
                   .mend = "correct the path or free space"};
}

}  // namespace us::tools
