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

int finish_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0)
    return static_cast<int>(ExitCode::kDone);
  return report({.id = "OUT-002",
                 .exit_code = ExitCode::kHostCannot,
                 .what = "cannot write the output",
                 .seen = std::strerror(errno),
                 .needed = "a stdout that takes it, with free space behind it",
                 .mend = "free space, or read all of the output"});
}

void remark(const Globals& globals, const hv::Machine& machine) {
  const std::string text = machine.vcpu().remarks();
  if (!text.empty() && !globals.quiet) fmt::print(stderr, "understudy: {}\n", text);
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
