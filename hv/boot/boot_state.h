// The processor state in which a loaded image is entered. Every register not named here has its
// reset value; interrupts are off and all segments are flat (base 0, limit 4 GiB).
#pragma once

#include <cstdint>
#include <string>

namespace us::hv {

// How the image expects to be entered.
enum class BootProtocol : uint8_t {
  kLinux64,     // Linux 64-bit boot protocol: long mode, RSI = boot_params
  kPvh,         // x86/HVM direct boot ABI: 32-bit protected mode, EBX = hvm_start_info
  kMultiboot1,  // Multiboot 0.6.96: 32-bit protected mode, EAX = magic, EBX = information
};

// Selectors of the GDT that the loader leaves in guest memory.
constexpr uint16_t kBootCodeSelector = 0x10;  // 64-bit code in long mode, else 32-bit code
constexpr uint16_t kBootDataSelector = 0x18;  // DS ES FS GS SS: read/write data
constexpr uint16_t kBootTaskSelector = 0x20;  // TR: busy TSS, base 0, limit 0x67

struct BootState {
  BootProtocol protocol = BootProtocol::kLinux64;
  bool long_mode = false;  // 64-bit code with paging on; otherwise 32-bit code without paging
  uint64_t rip = 0;
  uint64_t gpr[16] = {};  // RAX RCX RDX RBX RSP RBP RSI RDI R8-R15
  uint64_t rflags = 2;
  uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;  // last valid byte, as GDTR holds it
  uint16_t code_selector = kBootCodeSelector;
  uint16_t data_selector = kBootDataSelector;
  uint16_t task_selector = kBootTaskSelector;

  // For messages only: the kernel's own version text (bzImage), or empty.
  std::string kernel_version;
};

}  // namespace us::hv
