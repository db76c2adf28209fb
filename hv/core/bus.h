// What a vCPU needs from the machine around it. Calls come on the vCPU thread, in program order,
// and only between instructions that the machine could also stop at.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace us::hv {

class Bus {
 public:
  virtual ~Bus() = default;

  // Port I/O; size 1, 2 or 4. Absent ports read all ones and swallow writes.
  virtual uint32_t pio_read(uint16_t port, unsigned size) = 0;
  virtual void pio_write(uint16_t port, unsigned size, uint32_t value) = 0;

  // Memory-mapped I/O outside RAM; size 1, 2, 4 or 8. Absent addresses read all ones.
  virtual uint64_t mmio_read(GuestPhys address, unsigned size) = 0;
  virtual void mmio_write(GuestPhys address, unsigned size, uint64_t value) = 0;

  // MSRs that live outside the processor: IA32_APIC_BASE (0x1b), x2APIC (0x800-0x8ff) and
  // IA32_TSC_DEADLINE (0x6e0). False: no such MSR or bad value, the guest gets #GP.
  virtual bool msr_read(uint32_t index, uint64_t& value) = 0;
  virtual bool msr_write(uint32_t index, uint64_t value) = 0;

  // CR8, the task priority of the local APIC (bits 3:0). SDM 3A 11.8.6.
  virtual uint8_t task_priority() = 0;
  virtual void set_task_priority(uint8_t priority) = 0;

  // The guest's TSC at `now` (guest-written offset included), and a write of it.
  virtual GuestTsc tsc(Branches now) = 0;
  virtual void set_tsc(Branches now, GuestTsc value) = 0;

  // True when the last call may have changed what the machine wants of the vCPU (an interrupt
  // became pending, power-off was asked for): the vCPU then stops with StopReason::kAttention right
  // after the current instruction. Reading it clears it.
  virtual bool take_attention() = 0;
};

}  // namespace us::hv
