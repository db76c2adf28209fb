// The software vCPU's state as bytes, and as text.
#include <fmt/format.h>

#include "hv/cpu/code_cache.h"
#include "hv/cpu/flags.h"
#include "hv/cpu/soft_vcpu.h"
#include "hv/cpu/sse.h"

namespace us::hv {
namespace {

// One description of the state serves writing and reading: `io` sees every field in order.
struct Writer {
  ByteWriter& out;
  template <class T>
  void operator()(const T& value) {
    out.put(value);
  }
  void operator()(const bool& value) { out.put(static_cast<uint8_t>(value)); }
};
struct Reader {
  ByteReader& in;
  template <class T>
  void operator()(T& value) {
    value = in.get<T>();
  }
  void operator()(bool& value) { value = in.get<uint8_t>() != 0; }
};

template <class Io, class S>
void visit_segment(Io& io, S& segment) {
  io(segment.base), io(segment.limit), io(segment.access), io(segment.selector);
}

template <class Io, class State>
void visit_fpu(Io& io, State& s) {
  for (auto& xmm : s.xmm) io(xmm.q[0]), io(xmm.q[1]);
  io(s.mxcsr);
  for (auto& reg : s.fpu.reg) io(reg.mantissa), io(reg.exponent);
  io(s.fpu.control), io(s.fpu.status), io(s.fpu.valid), io(s.fpu.opcode);
  io(s.fpu.ip), io(s.fpu.dp), io(s.fpu.cs), io(s.fpu.ds);
}

template <class Io, class State>
void visit_msrs(Io& io, State& m) {
  io(m.star), io(m.lstar), io(m.cstar), io(m.sfmask), io(m.kernel_gs_base), io(m.tsc_aux);
  io(m.sysenter_cs), io(m.sysenter_esp), io(m.sysenter_eip), io(m.pat), io(m.misc_enable);
  io(m.spec_ctrl), io(m.debugctl), io(m.mtrr_def_type), io(m.mcg_status), io(m.xss);
  for (auto& v : m.mtrr_fixed) io(v);
  for (auto& v : m.mtrr_base) io(v);
  for (auto& v : m.mtrr_mask) io(v);
  for (auto& v : m.reserved) io(v);
}

// Everything but RFLAGS, whose arithmetic part has many equal forms.
template <class Io, class State>
void visit(Io& io, State& s) {
  for (unsigned i = 0; i < 16; ++i) io(s.regs[i]);
  io(s.rip), io(s.instructions), io(s.branches);
  visit_fpu(io, s);
  for (auto& segment : s.seg) visit_segment(io, segment);
  visit_segment(io, s.ldtr), visit_segment(io, s.tr);
  io(s.gdtr.base), io(s.gdtr.limit), io(s.idtr.base), io(s.idtr.limit);
  io(s.cr0), io(s.cr2), io(s.cr3), io(s.cr4), io(s.efer), io(s.xcr0);
  for (auto& v : s.dr) io(v);
  io(s.dr6), io(s.dr7);
  for (auto& v : s.pdpte) io(v);
  visit_msrs(io, s.msr);
  io(s.cpl), io(s.halted), io(s.shutdown), io(s.interrupt_shadow), io(s.nmi_blocked);
  io(s.nmi_pending), io(s.trap_hold), io(s.debug_hits);
}

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

void SoftVcpu::digest_state(ByteWriter& out) const {
  Writer writer{out};
  visit(writer, static_cast<const CpuState&>(*cpu_));
  out.put(rflags(*cpu_));
}

void SoftVcpu::save(ByteWriter& out) {
  drop_caches();
  digest_state(out);
}

Status SoftVcpu::load(ByteReader& in) {
  Reader reader{in};
  visit(reader, static_cast<CpuState&>(*cpu_));
  const uint64_t flags = in.get<uint64_t>();
  if (in.failed() || cpu_->cpl > 3 || cpu_->trap_hold > TrapHold::kAll ||
      (cpu_->mxcsr & ~kMxcsrWritable) != 0) {
    return UserError{.id = "SNAP-010",
                     .exit_code = ExitCode::kLogUnreadable,
                     .what = "processor state is damaged",
                     .seen = in.failed() ? "it ends early" : "values that no processor has",
                     .needed = "the state as it was saved",
                     .mend = "take the snapshot again"};
  }
  set_arithmetic_flags(*cpu_, flags);
  cpu_->rflags_other = (flags & ~flag::kArithmetic) | flag::kOne;
  drop_caches();
  refresh();
  move_trace();
  return Done{};
}

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
