// The payload of payload.S on a bare processor, run at speed or step by step, with interrupts and
// NMIs at the same places whichever way.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "hv/core/memory.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/soft_vcpu.h"
#include "ipt/epoch_digest.h"

namespace us::hv::test {

struct SilentBus final : NoBus {
  GuestTsc tsc(Branches now) override { return GuestTsc(now.value); }
};

enum class Injected : uint8_t { kNothing, kInterrupt, kNmi };
// What happened at a stop, by exact instruction.
struct Stop {
  uint64_t instructions = 0;
  Injected injected = Injected::kNothing;
  bool cut = false;  // the trace was cut here
};

struct TracedGuest {
  TracedGuest();

  // Runs to the end, stopping every few branches; what it did there is in `stops`. `seed` decides.
  // `cut`: at some stops, where the trace is to be cut.
  void run(uint64_t seed, const std::function<void()>& cut = {});
  // Does what was done at this place in a run whose stops these are. Call before every step.
  void follow(const std::vector<Stop>& stops);
  // Where the next instruction is.
  uint64_t linear() const;
  uint64_t instructions() const { return vcpu.cpu().instructions; }

  std::unique_ptr<GuestMemory> memory;
  SilentBus bus;
  SoftVcpu vcpu;
  std::vector<Stop> stops;

 private:
  void poke64(uint64_t at, uint64_t value);
  void gate32(unsigned vector, const uint8_t* handler);
  void gate64(unsigned vector, const uint8_t* handler);
  void build_tables();
  void inject(Injected what);
  size_t next_stop_ = 0;
};

}  // namespace us::hv::test
