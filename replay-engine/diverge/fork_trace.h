// A second opinion on where two paths part: the processor traces of both sides around the place,
// decoded by libipt from the code in guest memory.
#pragma once

#include "base/bytes.h"
#include "replay-engine/diverge/report.h"

namespace us::replay {

// Both traces begin at one place before the fork; `a` and `b` are machines that stand there, with
// the code as it was. Fills in fork.decoded and decoded_agrees.
void decode_fork(Fork& fork, ByteSpan trace_a, ByteSpan trace_b, const hv::Machine& a,
                 const hv::Machine& b);

}  // namespace us::replay
