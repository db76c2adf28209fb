// The software vCPU's state as bytes, and as text.
#include <fmt/format.h>

#include "hv/cpu/code_cache.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/soft_vcpu.h"
#include "hv/cpu/state_bytes.h"

namespace us::hv {
namespace {

std::string segment_line(const char* name, const Segment& s) {
  return fmt::format("{:<4} {:04x} base {:016x} limit {:08x} access {:04x}\n", name, s.selector,
                     s.base, s.limit, s.access);
}

std::string code_at(const Cpu& c) {
  std::string out = "code";
  for (uint64_t i = 0; i < 16; ++i) {
    uint64_t phys;
    const uint64_t linear = c.mode.is64() ? c.rip + i : c.seg[kCs].base + c.rip + i;
    uint8_t byte;
    if (!translate_quietly(c, linear, phys) || !c.memory.read(GuestPhys(phys), {&byte, 1})) {
      out += " ??";
    } else {
      out += fmt::format(" {:02x}", byte);
    }
  }
  return out + "\n";
}

}  // namespace

void SoftVcpu::digest_state(ByteWriter& out) const { put_state(*cpu_, out); }

void SoftVcpu::save(ByteWriter& out) { digest_state(out); }

Status SoftVcpu::load(ByteReader& in) {
  if (Status s = get_state(*cpu_, in); !s.ok()) return s;
  drop_caches();
  refresh();
  move_trace();
  return Done{};
}

void SoftVcpu::save_translations(ByteWriter& out) const { put_translations(*cpu_, out); }

Status SoftVcpu::load_translations(ByteReader& in) { return get_translations(*cpu_, in); }

std::string SoftVcpu::remarks() const {
  if (cpu_->unknown_instructions == 0) return {};
  return fmt::format("the guest ran {} instructions nobody implements (#UD), last {}",
                     cpu_->unknown_instructions, cpu_->last_unknown);
}

std::string SoftVcpu::dump() const {
  const Cpu& c = *cpu_;
  static constexpr const char* kNames[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
  std::string out =
      fmt::format("vcpu at instruction {}, conditional branch {}\n", c.instructions, c.branches);
  for (unsigned i = 0; i < 16; ++i)
    out += fmt::format("{:<3} {:016x}{}", kNames[i], c.regs[i], i % 4 == 3 ? "\n" : "  ");
  out += fmt::format("rip {:016x}  rflags {:08x}  cpl {}{}{}\n", c.rip, rflags(c), c.cpl,
                     c.halted ? " halted" : "", c.shutdown ? " shutdown" : "");
  out += fmt::format("cr0 {:08x}  cr2 {:016x}  cr3 {:016x}  cr4 {:08x}  efer {:x}\n", c.cr0, c.cr2,
                     c.cr3, c.cr4, c.efer);
  static constexpr const char* kSegments[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  for (unsigned i = 0; i < kSegCount; ++i) out += segment_line(kSegments[i], c.seg[i]);
  out += segment_line("tr", c.tr) + segment_line("ldtr", c.ldtr);
  out += fmt::format("gdt  base {:016x} limit {:04x}   idt base {:016x} limit {:04x}\n",
                     c.gdtr.base, c.gdtr.limit, c.idtr.base, c.idtr.limit);
  out += fmt::format("last fault: vector {} error {:x}\n", c.fault.vector, c.fault.error);
  if (const std::string text = remarks(); !text.empty()) out += text + "\n";
  return out + code_at(c);
}

}  // namespace us::hv
