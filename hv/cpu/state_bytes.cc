#include "hv/cpu/state_bytes.h"

#include "hv/cpu/flags.h"
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

}  // namespace

void put_state(const CpuState& state, ByteWriter& out) {
  Writer writer{out};
  visit(writer, state);
  out.put(rflags(state));
}

Status get_state(CpuState& state, ByteReader& in) {
  Reader reader{in};
  visit(reader, state);
  const uint64_t flags = in.get<uint64_t>();
  if (in.failed() || state.cpl > 3 || state.trap_hold > TrapHold::kAll ||
      (state.mxcsr & ~kMxcsrWritable) != 0) {
    return UserError{.id = "SNAP-010",
                     .exit_code = ExitCode::kLogUnreadable,
                     .what = "processor state is damaged",
                     .seen = in.failed() ? "it ends early" : "values that no processor has",
                     .needed = "the state as it was saved",
                     .mend = "take the snapshot again"};
  }
  set_arithmetic_flags(state, flags);
  state.rflags_other = (flags & ~flag::kArithmetic) | flag::kOne;
  return Done{};
}

}  // namespace us::hv
