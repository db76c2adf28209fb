// Any arbiter with a bound on how long a call takes.
#pragma once

#include <chrono>
#include <memory>

#include "replay-engine/arbiter/arbiter.h"

namespace us::replay {

// Calls go to a thread of its own. One that does not come back in time is left alone: its caller
// gets kUnreachable (or ARB-002), and so do those who call while it is still stuck. There is at
// most one such thread an arbiter; it ends when the storage answers or the process does.
std::unique_ptr<Arbiter> make_bounded_arbiter(std::shared_ptr<Arbiter> inner,
                                              std::chrono::milliseconds timeout);

}  // namespace us::replay
