#include "tests/simulation/arbiter.h"

namespace us::sim {

using std::chrono::microseconds;
using std::chrono::milliseconds;

void ask(Schedule& schedule, Random& random, Register& reg, uint64_t generation,
         const std::string& node, std::function<void(replay::Claim)> answer) {
  const Nanos there =
      random.between(microseconds(100), reg.slow ? milliseconds(800) : milliseconds(3));
  const Nanos back =
      random.between(microseconds(100), reg.slow ? milliseconds(800) : milliseconds(3));
  const bool answer_lost = random.chance(0.05);
  schedule.after(
      there, [&schedule, &reg, generation, node, back, answer_lost, answer = std::move(answer)] {
        replay::Claim claim{replay::ClaimVerdict::kUnreachable, 0, "", "away"};
        if (!reg.away) claim = reg.claim(generation, node);
        if (answer_lost) claim = {replay::ClaimVerdict::kUnreachable, 0, "", "answer lost"};
        schedule.after(back, [claim, answer] { answer(claim); });
      });
}

}  // namespace us::sim
