// The one loop. Primary, secondary, recording and replay run it; only the source differs.
#pragma once

#include <functional>

#include "replay-engine/landing.h"
#include "replay-engine/source.h"

namespace us::replay {

// Told of every input at the moment it is applied (a log writer, a verifier), before it is.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  // False ends the run (a size limit, a divergence); `why` is then filled in.
  virtual bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) = 0;
};

// Runs until the source has nothing more. `observer` may be null.
EndOfInputs run_loop(hv::Machine& machine, InputSource& source, Lander& lander,
                     InputObserver* observer);

}  // namespace us::replay
