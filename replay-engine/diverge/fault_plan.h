// Faults to plant into an execution, so that finding them can be tested and drilled: what a cosmic
// ray, a broken counter, a lost interrupt or a bug in the processor's model would do to one side.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "hv/machine.h"

namespace us::replay {

enum class FaultKind : uint8_t {
  kFlipMemory,     // one bit of guest memory
  kSkipInterrupt,  // the next interrupt is taken from its controller, and the guest never sees it
  kLateInterrupt,  // the next interrupt comes one instruction late
  kChangeTsc,      // the next RDTSC reads something else
  kChangeCpuid,    // the next CPUID of a leaf has a wrong bit
  kFlipRegister,   // one bit of a general register
};

// When: `steps` instructions after the branch `at` has retired. The kinds that wait for an event
// take the first one from there on.
struct Fault {
  FaultKind kind = FaultKind::kFlipMemory;
  Branches at;
  uint64_t steps = 0;
  uint64_t address = 0;  // kFlipMemory: guest physical
  uint32_t leaf = 0;     // kChangeCpuid
  unsigned reg = 0;      // kChangeCpuid, kFlipRegister: as Registers::gpr
  unsigned bit = 0;
  uint64_t exclusive_or = 0;  // kChangeTsc
};

// "flip@BRANCHES[+STEPS]:ADDRESS:BIT", "skip-interrupt@B[+S]", "late-interrupt@B[+S]",
// "rdtsc@B[+S]:XOR", "cpuid@B[+S]:LEAF:REGISTER:BIT", "register@B[+S]:REGISTER:BIT"; numbers as in
// C, registers as "rax". Errors: DIV-003.
Result<Fault> parse_fault(std::string_view text);
std::string to_text(const Fault& fault);

// Carries a plan out on one machine. Copies go on from where the original was.
class FaultInjector {
 public:
  FaultInjector() = default;
  explicit FaultInjector(std::vector<Fault> plan);

  // The machine must not run past this branch before step() has taken over; ~0: no fault is left.
  Branches next_at() const;
  // From the next fault's branch on the machine is stepped until the fault is done.
  bool wants_steps(const hv::Machine& machine) const;
  // One step of the machine, with what is due at this place before or in it. Precondition:
  // wants_steps().
  hv::MachineStop step(hv::Machine& machine);
  // Branches after its own that a fault waits for its event; given up then.
  static constexpr uint64_t kPatience = 3'000'000;

  uint64_t done() const { return done_; }

 private:
  enum class Outcome : uint8_t {
    kWaits,    // its event is not here
    kDone,     // done; the step is still to be made
    kStepped,  // done, and the step with it
  };
  static Outcome perform(hv::Machine& machine, const Fault& fault, hv::MachineStop& stop);

  std::vector<Fault> plan_;  // in order
  size_t next_ = 0;
  uint64_t steps_taken_ = 0;  // since the next fault's branch
  uint64_t done_ = 0;
};

}  // namespace us::replay
