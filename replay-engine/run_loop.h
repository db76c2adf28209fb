// The one loop. Primary, secondary, recording and replay run it; only the source differs.
#pragma once

#include <functional>

#include "replay-engine/landing.h"
#include "replay-engine/source.h"

namespace us::replay {

// Told of every input and epoch end while the machine stands at its point: a log writer, a
// verifier. Both return false to end the run (a size limit, a divergence), with `why` filled in.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  virtual bool before_apply(hv::Machine& machine, const StampedInput& input, EndOfInputs& why) = 0;
  virtual bool at_epoch(hv::Machine& machine, const EpochCheck& check, EndOfInputs& why) = 0;
};

// Runs until the source has nothing more. `observer` may be null.
EndOfInputs run_loop(hv::Machine& machine, InputSource& source, Lander& lander,
                     InputObserver* observer);

}  // namespace us::replay
