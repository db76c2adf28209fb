// A bus with nothing on it: reads of ports and memory find all lines high. For processors that are
// run without devices, and to be derived from where there is one thing to say.
#pragma once

#include "hv/core/bus.h"

namespace us::hv {

class NoBus : public Bus {
 public:
  uint32_t pio_read(uint16_t, unsigned) override { return ~0u; }
  void pio_write(uint16_t, unsigned, uint32_t) override {}
  uint64_t mmio_read(GuestPhys, unsigned) override { return ~uint64_t{0}; }
  void mmio_write(GuestPhys, unsigned, uint64_t) override {}
  bool msr_read(uint32_t, uint64_t&) override { return false; }
  bool msr_write(uint32_t, uint64_t) override { return false; }
  uint8_t task_priority() override { return 0; }
  void set_task_priority(uint8_t) override {}
  GuestTsc tsc(Branches) override { return {}; }
  void set_tsc(Branches, GuestTsc) override {}
  bool take_attention() override { return false; }
};

}  // namespace us::hv
