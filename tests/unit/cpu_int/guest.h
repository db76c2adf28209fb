// A software vCPU in 64-bit mode (or a flat 32-bit one), memory mapped one to one, nothing around
// it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "hv/core/memory.h"
#include "hv/core/no_bus.h"
#include "hv/cpu/soft_vcpu.h"
#include "tests/unit/cpu_int/machine.h"

namespace us::test {

class Guest {
 public:
  enum class Kind { k64, k32 };
  explicit Guest(Kind kind = Kind::k64);
  ~Guest();

  static constexpr uint64_t kCode = 0x10'0000;

  hv::Cpu& cpu() { return vcpu_->cpu(); }
  hv::SoftVcpu& vcpu() { return *vcpu_; }
  hv::GuestMemory& memory() { return *memory_; }

  void load(const Machine& m);
  Machine store();
  // Puts `code` and a HLT at kCode and runs up to the HLT.
  hv::StopReason run(std::span<const uint8_t> code);
  // The first instruction of `code` alone, by the stepper.
  hv::StopReason step(std::span<const uint8_t> code);
  // Takes away or gives back the mapping of the page at `address` in the data area.
  void map_page(uint64_t address, bool present);
  // Makes the data page at `address` show the memory of the page at `target`.
  void alias_page(uint64_t address, uint64_t target);
  // 64-bit mode: every 2 MiB of the lower half show the first 2 MiB of memory.
  void show_first_pages_everywhere();

  // From here on faults arrive at handlers that halt (on a stack of their own in 64-bit mode);
  // without it they shut the processor down.
  void catch_faults();
  struct Caught {
    uint8_t vector = 255;  // 255: none
    uint64_t rip = 0, rsp = 0;
    uint32_t error = 0;
  };
  // What the last run or step ended with.
  Caught caught();

  struct PortBus;
  PortBus& ports() { return *bus_; }

 private:
  void put(std::span<const uint8_t> code);
  void poke(uint64_t address, uint64_t value);
  void build_tables();
  Kind kind_;
  std::unique_ptr<hv::GuestMemory> memory_;
  std::unique_ptr<PortBus> bus_;
  std::unique_ptr<hv::SoftVcpu> vcpu_;
};

// Ports count up when read and remember what is written.
struct Guest::PortBus : hv::NoBus {
  std::vector<uint32_t> written;
  uint32_t next = 0x11;
  uint32_t pio_read(uint16_t, unsigned) override { return next++; }
  void pio_write(uint16_t, unsigned, uint32_t value) override { written.push_back(value); }
};

}  // namespace us::test
