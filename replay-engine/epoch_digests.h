// The digests both sides compare at an epoch's end.
#pragma once

#include "replay-engine/source.h"

namespace us::replay {

// Cut to the width kept in the log (kDigestWidth bytes).
EpochDigests epoch_digests(hv::Machine& machine, bool with_memory);

}  // namespace us::replay
