// Looking into a stopped guest without disturbing it: memory by linear address, code as text,
// registers by name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "hv/machine.h"

namespace us::replay {

// "rax", "rcx", … in the order of Registers::gpr.
const char* register_name(unsigned gpr);

// Copies from the guest's linear memory in its present mode, up to the first byte that is not
// mapped or no RAM; returns how many. Sets no accessed bits.
size_t read_guest(const hv::Machine& machine, uint64_t linear, std::span<uint8_t> out);

// The same in the address space of `cr3`, by four-level paging. SDM 3A 4.5
size_t read_guest_as(const hv::Machine& machine, uint64_t cr3, uint64_t linear,
                     std::span<uint8_t> out);

enum class BranchKind : uint8_t { kNone, kConditional, kIndirect, kDirect, kFar };

struct CodeLine {
  uint64_t ip = 0;
  std::string symbol{};  // of ip, where known
  unsigned length = 0;   // bytes; 0: not readable or no instruction
  std::string bytes{};   // hexadecimal
  std::string text{};    // Intel syntax
  BranchKind branch = BranchKind::kNone;
  uint64_t target = 0;  // kConditional, kDirect: where it leads when taken
};

// The instruction at `ip` as the guest would decode it now.
CodeLine disassemble(const hv::Machine& machine, uint64_t ip);

}  // namespace us::replay
