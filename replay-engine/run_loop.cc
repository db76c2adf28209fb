#include "replay-engine/run_loop.h"

namespace us::replay {

EndOfInputs run_loop(hv::Machine& machine, InputSource& source, Lander& lander,
                     InputObserver* observer) {
  for (;;) {
    Next next = source.next(machine);
    if (const auto* end = std::get_if<EndOfInputs>(&next)) return *end;
    const auto& input = std::get<StampedInput>(next);
    const LandingResult landing = lander.land(machine, input.point);
    if (!landing.ok()) return landing.end();
    EndOfInputs why;
    if (observer != nullptr && !observer->before_apply(machine, input, why)) return why;
    machine.apply(input.input);
  }
}

}  // namespace us::replay
