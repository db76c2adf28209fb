// Holds the two processors' answers against each other, leaving out what the manuals leave open.
#pragma once

#include <string>

#include "tests/differential/generator.h"

namespace us::differential {

// What differs, one line each; empty: nothing. The snapshots are changed: what is not compared
// becomes equal.
std::string differences(const Test& test, const Snapshot& before, Snapshot& native, Snapshot& soft);

// Bytes, text, and the whole of both answers for a report.
std::string describe(const Test& test, const Snapshot& before);

}  // namespace us::differential
