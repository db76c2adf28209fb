// What verbs say to people: stderr only, and the last line that every run of a guest ends with.
#pragma once

#include <string>

#include "base/result.h"
#include "hv/core/execution_point.h"
#include "tools/session.h"
#include "tools/verbs.h"

namespace us::tools {

// Prints the error and returns its exit code.
int report(const UserError& error);

// "understudy: guest powered off at branch 123 (instruction 456); artifacts in DIR"
int finish(const Globals& globals, const Outcome& outcome, const hv::ExecutionPoint& point,
           const std::string& artifacts);

// Flushes stdout at the end of a verb whose work is its output: 0, or an error said on stderr.
// Errors: OUT-002.
int finish_output();

// Says on stderr what the machine's processor wants said after a run, if anything.
void remark(const Globals& globals, const hv::Machine& machine);

// Writes a small text file (statistics); errors: OUT-001.
Status write_text(const std::string& path, const std::string& text);

}  // namespace us::tools
