#include "replay-engine/run_loop.h"

namespace us::replay {

EndOfInputs run_loop(hv::Machine& machine, InputSource& source, Lander& lander,
                     InputObserver* observer) {
  for (;;) {
    Next next = source.next(machine);
    if (const auto* end = std::get_if<EndOfInputs>(&next)) return *end;
    const auto* check = std::get_if<EpochCheck>(&next);
    const auto* input = std::get_if<StampedInput>(&next);
    const LandingTarget target{check != nullptr ? check->point : input->point, source.tie()};
    const LandingResult landing = lander.land(machine, target);
    if (!landing.ok()) return landing.end();
    EndOfInputs why;
    if (check != nullptr) {
      if (observer != nullptr && !observer->at_epoch(machine, *check, why)) return why;
    } else {
      if (observer != nullptr && !observer->before_apply(machine, *input, why)) return why;
      machine.apply(input->input);
    }
  }
}

}  // namespace us::replay
