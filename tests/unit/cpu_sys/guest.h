// A bare guest for tests of the privileged processor: 16 MiB of RAM, a bus that remembers, and
// helpers that put it into long, protected or real mode with plain tables.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#include "hv/core/bus.h"
#include "hv/core/memory.h"
#include "hv/cpu/mmu.h"
#include "hv/cpu/soft_vcpu.h"
#include "hv/cpu/system.h"

namespace us::hv::test {

struct BusLog final : Bus {
  struct Call {
    char kind;  // i, o: ports; r, w: memory; R, W: MSRs
    uint64_t address;
    unsigned size;
    uint64_t value;
  };
  std::vector<Call> calls;
  uint64_t answer = 0x1122'3344'5566'7788;
  uint8_t priority = 0;
  bool attention = false;
  uint64_t looks = 0;                    // how often the run loop asked
  uint64_t attention_at = ~uint64_t{0};  // at this look it is told to stop

  uint32_t pio_read(uint16_t port, unsigned size) override {
    calls.push_back({'i', port, size, answer});
    return static_cast<uint32_t>(answer);
  }
  void pio_write(uint16_t port, unsigned size, uint32_t value) override {
    calls.push_back({'o', port, size, value});
  }
  uint64_t mmio_read(GuestPhys at, unsigned size) override {
    calls.push_back({'r', at.value, size, answer});
    return answer;
  }
  void mmio_write(GuestPhys at, unsigned size, uint64_t value) override {
    calls.push_back({'w', at.value, size, value});
  }
  bool msr_read(uint32_t index, uint64_t& value) override {
    calls.push_back({'R', index, 8, answer});
    value = answer;
    return index != 0x8ff;
  }
  bool msr_write(uint32_t index, uint64_t value) override {
    calls.push_back({'W', index, 8, value});
    return index != 0x8ff;
  }
  uint8_t task_priority() override { return priority; }
  void set_task_priority(uint8_t value) override { priority = value; }
  GuestTsc tsc(Branches now) override { return GuestTsc(1000 + now.value); }
  void set_tsc(Branches, GuestTsc) override {}
  bool take_attention() override {
    const bool was = attention || ++looks == attention_at;
    attention = false;
    return was;
  }
};

// Selectors of the long-mode and protected-mode GDT built below.
constexpr uint16_t kCode64 = 0x08, kData = 0x10, kUserCode32 = 0x1b, kUserData = 0x23,
                   kUserCode64 = 0x2b, kTss = 0x30, kCode32 = 0x40;
constexpr uint64_t kGdtAt = 0x1000, kIdtAt = 0x2000, kTssAt = 0x3000, kPml4At = 0x10000,
                   kStackTop = 0x80000, kCodeAt = 0x100000, kHandlersAt = 0x200000,
                   kUserStackTop = 0x90000;

struct Guest {
  Guest();

  Cpu& cpu() { return vcpu.cpu(); }
  void put(uint64_t phys, std::initializer_list<int> bytes);
  void poke64(uint64_t phys, uint64_t value) { poke(phys, &value, 8); }
  void poke32(uint64_t phys, uint32_t value) { poke(phys, &value, 4); }
  void poke(uint64_t phys, const void* from, size_t size);
  uint64_t peek64(uint64_t phys);
  uint32_t peek32(uint64_t phys);

  // The first 2 GiB mapped one to one for everybody with 2 MiB pages; GDT, TSS and IDT in place,
  // every vector leading to its own HLT at kHandlersAt + 16 * vector.
  void enter_long_mode();
  // Flat 32-bit segments, paging off; the same tables with 8-byte gates.
  void enter_protected_mode();
  // As an operating system would run a program: CPL 3, user segments.
  void enter_user(bool long_mode);

  void gate64(unsigned vector, uint64_t offset, uint16_t selector, unsigned dpl, unsigned ist,
              bool trap = false);
  void gate32(unsigned vector, uint32_t offset, uint16_t selector, unsigned dpl, unsigned type);
  // Runs at most `most` steps, until halted, shut down or attention.
  StopReason run(unsigned most = 10'000);

  std::unique_ptr<GuestMemory> memory;
  BusLog bus;
  SoftVcpu vcpu;

 private:
  void write_gdt();
};

constexpr uint64_t handler_of(unsigned vector) { return kHandlersAt + 16 * vector; }

}  // namespace us::hv::test
