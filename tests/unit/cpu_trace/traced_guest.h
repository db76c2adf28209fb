// The payload of payload.S on a bare processor, run at speed or step by step, with interrupts and
// NMIs at the same places whichever way.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "hv/core/bus.h"
#include "hv/core/memory.h"
#include "hv/cpu/soft_vcpu.h"
#include "ipt/epoch_digest.h"

namespace us::hv::test {

struct SilentBus final : Bus {
  uint32_t pio_read(uint16_t, unsigned) override { return 0; }
  void pio_write(uint16_t, unsigned, uint32_t) override {}
  uint64_t mmio_read(GuestPhys, unsigned) override { return 0; }
  void mmio_write(GuestPhys, unsigned, uint64_t) override {}
  bool msr_read(uint32_t, uint64_t&) override { return false; }
  bool msr_write(uint32_t, uint64_t) override { return false; }
  uint8_t task_priority() override { return 0; }
  void set_task_priority(uint8_t) override {}
  GuestTsc tsc(Branches now) override { return GuestTsc(now.value); }
  void set_tsc(Branches, GuestTsc) override {}
  bool take_attention() override { return false; }
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
